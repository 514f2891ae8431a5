"""Calls that still run after their deadline, because decoding in the model server cannot be interrupted."""

import asyncio
from typing import Any

MAX_UNFINISHED = 16
"""Calls that may still run after their deadline."""


class UnfinishedCalls:
    """Count calls until the server has really ended their work.

    Bounded: the 17th call is cancelled at once; the server may still be busy with it.
    """

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._calls)

    def add(self, call: asyncio.Task[Any]) -> None:
        """Count a call until it ends."""
        self._calls.add(call)
        call.add_done_callback(self._finished)
        if len(self._calls) > MAX_UNFINISHED:
            call.cancel()

    async def cancel(self) -> None:
        """Cancel all calls and wait until they have ended here."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _finished(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # retrieved, or asyncio would log it: its caller may have given up
