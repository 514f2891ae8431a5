"""The interface of a measurement."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure
from bench.machine import ROOT

CACHE = ROOT / ".cache/bench"
"""Cache of models and environments."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Folders, time and notes of one measurement.

    Args:
        folder: Empty folder for its files; removed afterwards.
        out: Folder of the report, also for pictures.
        seconds: Time budget.
        quick: Run everything once, as short as possible.
        notes: Sentences for the document, which the measurement appends.
    """

    folder: Path
    out: Path
    seconds: float
    quick: bool
    notes: list[str] = field(default_factory=list)
    _started_at: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Remaining time of the budget."""
        return self.seconds - (time.monotonic() - self._started_at)

    def note(self, sentence: str) -> None:
        """Add a sentence to the document, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


Measure = Callable[[Setting], Awaitable[list[Figure]]]
