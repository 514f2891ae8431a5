"""Report the progress of long steps."""

import time
from typing import Protocol

import structlog

LOG_EVERY_S = 30.0
"""Seconds between two lines of the log about one step."""

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
    """Writes each step to the log as it starts, and how far it is, for processes without a terminal."""

    def __init__(self) -> None:
        self._step, self._total, self._done = "", 0, 0
        self._logged_at = 0.0

    def start(self, step: str, total: int) -> None:
        """Log the step."""
        self._step, self._total, self._done = step, total, 0
        self._logged_at = time.monotonic()
        log.info("step.started", step=step, total=total)

    def advance(self, count: int = 1) -> None:
        """Count, and log from time to time."""
        self._done += count
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("step.progress", step=self._step, done=self._done, total=self._total)
