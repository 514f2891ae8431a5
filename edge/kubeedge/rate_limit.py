"""A steady pace for a way that loses what comes too fast."""

import asyncio
import time


class RateLimiter:
    """Lets its callers go on one after the other, evenly, without a burst.

    Args:
        per_s: How many in a second.
    """

    def __init__(self, per_s: float) -> None:
        self._apart_s = 1 / per_s
        self._next_at = 0.0

    async def turn(self) -> None:
        """Wait for one's turn. Cancelling leaves a gap and nothing else."""
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._apart_s
        await asyncio.sleep(at - now)
