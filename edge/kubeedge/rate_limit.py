"""Rate limiter: evenly spaced, no bursts."""

import asyncio
import time


class RateLimiter:
    """Let callers continue one after the other, at least `1 / per_s` seconds apart.

    Args:
        per_s: Limit per second.
    """

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next_at = 0.0

    async def wait(self) -> None:
        """Wait for the next slot. Safe to cancel: the slot stays unused."""
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._interval_s  # reserved before sleeping, so that callers get different slots
        await asyncio.sleep(at - now)
