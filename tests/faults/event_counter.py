"""Count events and wait for the next one."""

import asyncio


class EventCounter:
    """Counts events and wakes the tasks that wait for the next one.

    Args:
        total: A counter that counts every event of this one too.
    """

    def __init__(self, total: "EventCounter | None" = None) -> None:
        self.count = 0
        self._total = total
        self._counted = asyncio.Event()

    def add(self) -> None:
        """Count an event and wake all waiting tasks."""
        self.count += 1
        self._counted.set()
        self._counted = asyncio.Event()  # a new one: tasks that wait from now on wait for the next event
        if self._total is not None:
            self._total.add()

    async def next(self) -> None:
        """Wait for the next event. Safe to cancel."""
        await self._counted.wait()
