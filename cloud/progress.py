"""Report the progress of long steps."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one step at a time; a terminal draws a bar for it."""

    def start(self, step: str, total: int) -> None:
        """Begin a step of `total` units; it ends the step before."""

    def advance(self, count: int = 1) -> None:
        """Add completed units of the current step."""


class NoProgress:
    """Discards all progress."""

    def start(self, step: str, total: int) -> None:
        """Ignore the step."""

    def advance(self, count: int = 1) -> None:
        """Ignore the count."""
