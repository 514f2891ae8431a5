"""What a measurement is given, and what it gives back."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure
from bench.machine import ROOT

CACHE = ROOT / ".cache/bench"
"""Keeps models and environments from run to run."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One measurement's means.

    Args:
        folder: Empty, for its files; removed afterwards.
        out: Where the report goes; for pictures beside it.
        seconds: It should take no longer.
        quick: Go through everything once, as short as can be.
        notes: Sentences for the document; a measurement appends to them.
    """

    folder: Path
    out: Path
    seconds: float
    quick: bool
    notes: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """How much of its time is left."""
        return self.seconds - (time.monotonic() - self._began)

    def note(self, sentence: str) -> None:
        """Say something in the document."""
        if sentence not in self.notes:
            self.notes.append(sentence)


Measure = Callable[[Setting], Awaitable[list[Figure]]]
