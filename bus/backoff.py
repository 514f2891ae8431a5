"""Retry as a value: an iterator of delays. Only what owns a peer retries."""

import random
from collections.abc import Iterator

RESET_AFTER_S = 5.0
"""A connection that worked for longer is one that had recovered, in seconds."""


def backoff(
    first_s: float = 0.5, cap_s: float = 60.0, *, draw: random.Random | None = None
) -> Iterator[float]:
    """Yield delays without end: a ceiling that doubles up to the cap, each delay drawn below it.

    Args:
        first_s: First ceiling, in seconds.
        cap_s: Highest ceiling, in seconds.
        draw: Source of randomness; the system's if left out.

    Source: "full jitter" of Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    uniform = (draw or random).uniform
    ceiling_s = min(first_s, cap_s)
    while True:
        yield uniform(0, ceiling_s)
        ceiling_s = min(ceiling_s * 2, cap_s)


class ReconnectBackoff:
    """When to connect again, decided by how long the connections before have worked.

    A short life is no recovery: after it the delays go on growing. Else two clients of one id would throw
    each other out for ever, as fast as they can.

    Args:
        cap_s: Highest ceiling of the delays, in seconds.
        draw: Source of randomness; the system's if left out.
    """

    def __init__(self, cap_s: float, *, draw: random.Random | None = None) -> None:
        self.failures = 0
        """How often it failed since it was steady: the first one is news."""
        self.short_connections = 0
        """How many connections since then began to work, and not for long."""
        self._cap_s = cap_s
        self._draw = draw
        self._delays = backoff(cap_s=cap_s, draw=draw)

    def lost(self, worked_s: float | None) -> float:
        """Return how long to wait before the next attempt, in seconds.

        Args:
            worked_s: How long the connection worked; None if it never did.
        """
        if worked_s is not None and worked_s > RESET_AFTER_S:
            self.failures = self.short_connections = 0
            self._delays = backoff(cap_s=self._cap_s, draw=self._draw)
        elif worked_s is not None:
            self.short_connections += 1
        self.failures += 1
        return next(self._delays)


def resend_delay(attempt: int, *, first_s: float, cap_s: float, draw: random.Random | None = None) -> float:
    """Return how long to wait for an answer before sending again, in seconds.

    Unlike `backoff` it never goes below half its ceiling, because an answer needs its time.

    Args:
        attempt: How often it was sent, 1 or more.
        first_s: Ceiling after the first sending.
        cap_s: Highest ceiling.
        draw: Source of randomness; the system's if left out.
    """
    doublings = min(attempt - 1, 32)
    ceiling_s = min(first_s * 2**doublings, cap_s)
    return (draw or random).uniform(ceiling_s / 2, ceiling_s)
