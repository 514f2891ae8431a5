"""Collect the values of repeats, and turn them into figures."""

from collections import defaultdict
from dataclasses import dataclass, field

from bench.figures import Figure, Goal


@dataclass(frozen=True, slots=True)
class Table:
    """Measured values by name and contestant, one per repeat."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, of: str, value: float) -> None:
        """Add the value of a repeat."""
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
        """Return the figures of a name, one per contestant.

        Args:
            name: What was measured.
            unit: Unit of the values.
            against: The contestant that is the reference.
            chart: Title of the plot, `Y by X`.
            x: Position on the x axis.
            goals: Goals by contestant.
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
