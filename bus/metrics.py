"""Event counters, published in each component's Status."""

from collections import Counter


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
