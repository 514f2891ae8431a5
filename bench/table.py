"""Values gathered repeat by repeat, and made into figures at the end."""

from collections import defaultdict
from dataclasses import dataclass, field

from bench.figures import Figure, Goal


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured so far: by name and contestant, one value for each repeat."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, of: str, value: float) -> None:
        """Add a repeat."""
        self.values[name, of].append(value)

    def figures(
        self,
        name: str,
        unit: str,
        *,
        against: str | None = None,
        chart: str | None = None,
        x: float | None = None,
        goals: dict[str, Goal] | None = None,
    ) -> list[Figure]:
        """Return the figures of that name, of all contestants.

        Args:
            name: What was measured.
            unit: Of it.
            against: The contestant that is the reference.
            chart: Title of a plot, `Y by X`.
            x: Place there.
            goals: By contestant.
        """
        return [
            Figure(
                name=name,
                of=of,
                unit=unit,
                values=values,
                against=None if of == against else against,
                chart=chart,
                x=x,
                goal=(goals or {}).get(of),
            )
            for (found, of), values in self.values.items()
            if found == name
        ]
