"""Report the progress of long steps."""

from typing import Protocol

import structlog

log = structlog.get_logger()


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


class LoggedProgress:
    """Writes each step to the log as it starts, for processes without a terminal."""

    def start(self, step: str, total: int) -> None:
        """Log the step."""
        log.info("step.started", step=step, total=total)

    def advance(self, count: int = 1) -> None:
        """Ignore the count."""
