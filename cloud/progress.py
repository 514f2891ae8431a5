"""How long steps say where they are."""

from typing import Protocol

import structlog

log = structlog.get_logger()


class Progress(Protocol):
    """Shows one step at a time; a terminal puts a bar behind it."""

    def start(self, step: str, total: int) -> None:
        """Begin a step of `total` units; the step before is over."""

    def advance(self, count: int = 1) -> None:
        """Say that so many more units of the current step are done."""


class Silent:
    """Shows nothing."""

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
