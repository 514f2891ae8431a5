"""A pulse: the sign that something comes through, which recovery is measured by."""

import asyncio


class Pulse:
    """Counts beats and wakes those who wait for the next one.

    Args:
        whole: A pulse that beats along.
    """

    def __init__(self, whole: "Pulse | None" = None) -> None:
        self.count = 0
        self._whole = whole
        self._beaten = asyncio.Event()

    def beat(self) -> None:
        """Count one and wake everybody."""
        self.count += 1
        self._beaten.set()
        self._beaten = asyncio.Event()
        if self._whole is not None:
            self._whole.beat()

    async def next(self) -> None:
        """Wait for the next beat. Safe to cancel."""
        await self._beaten.wait()
