"""Counters: what happened how often, reported in each component's Status."""

from collections import Counter


class Counters:
    """Named counts that only grow. The set of names is fixed by the code, so it is bounded."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something; the name is dotted and in the past tense, such as `photo.answered`."""
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """Return the counts so far, by name in order."""
        return dict(sorted(self._counts.items()))
