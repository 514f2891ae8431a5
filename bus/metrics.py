"""Event counters, published in each component's Status, and durations."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate


class Counters:
    """Named counters that only increase. The code fixes the set of names, so it is bounded."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Increase a counter, named `subject.past_participle`, for example `photo.answered`."""
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """Return all counters, sorted by name."""
        return dict(sorted(self._counts.items()))


class Durations:
    """How often something took how long: counts by upper bound.

    Args:
        bounds_s: Upper bounds of the buckets in seconds, ascending; a last one has none.
    """

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count a duration in seconds."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self.total_s += duration_s

    def buckets(self) -> list[tuple[str, int]]:
        """Return the upper bounds, the last one `+Inf`, each with the number of durations up to it."""
        bounds = [*map(str, self._bounds_s), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))
