"""Delays between retries and resends, with jitter. Only the owner of a connection or request retries it."""

import random
from collections.abc import Iterator

RESET_AFTER_S = 5.0
"""Uptime of a connection, in seconds, after which the backoff starts again."""
_MAX_DOUBLINGS = 32


def backoff(
    first_s: float = 0.5, cap_s: float = 60.0, *, rng: random.Random | None = None
) -> Iterator[float]:
    """Yield delays in seconds, without end: uniform between 0 and a ceiling that doubles up to the cap.

    Args:
        first_s: First ceiling, in seconds.
        cap_s: Highest ceiling, in seconds.
        rng: Source of randomness; the module `random` if None.

    Source: "full jitter" of Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    uniform = (rng or random).uniform
    ceiling_s = min(first_s, cap_s)
    while True:
        yield uniform(0, ceiling_s)
        ceiling_s = min(ceiling_s * 2, cap_s)


class ReconnectBackoff:
    """Delays between connection attempts, reset only after a connection has lasted.

    Args:
        cap_s: Highest ceiling of the delays, in seconds.
        rng: Source of randomness; the module `random` if None.
    """

    def __init__(self, cap_s: float, *, rng: random.Random | None = None) -> None:
        self.failures = 0
        """Failed attempts and lost connections since the last reset."""
        self.short_connections = 0
        """Connections since the last reset that worked, but for less than `RESET_AFTER_S`."""
        self._cap_s = cap_s
        self._rng = rng
        self._delays = backoff(cap_s=cap_s, rng=rng)

    def next_delay(self, uptime_s: float | None) -> float:
        """Record the end of a connection and return the delay before the next attempt, in seconds.

        Args:
            uptime_s: How long the connection worked, in seconds; None if it never did.
        """
        # A short connection does not reset the backoff: two clients with one id would otherwise disconnect
        # each other without end, at full speed.
        if uptime_s is not None and uptime_s > RESET_AFTER_S:
            self.failures = self.short_connections = 0
            self._delays = backoff(cap_s=self._cap_s, rng=self._rng)
        elif uptime_s is not None:
            self.short_connections += 1
        self.failures += 1
        return next(self._delays)


def resend_delay(attempt: int, *, first_s: float, cap_s: float, rng: random.Random | None = None) -> float:
    """Return how long to wait for an answer before sending again, in seconds.

    Unlike `backoff` it is at least half its ceiling, because the receiver needs time to answer.

    Args:
        attempt: How often the message was sent, 1 or more.
        first_s: Ceiling after the first attempt, in seconds.
        cap_s: Highest ceiling, in seconds.
        rng: Source of randomness; the module `random` if None.
    """
    doublings = min(attempt - 1, _MAX_DOUBLINGS)  # 2.0 ** 1024 would overflow
    ceiling_s = min(first_s * 2**doublings, cap_s)
    return (rng or random).uniform(ceiling_s / 2, ceiling_s)
