"""Publish `deferred` results with a reason."""

import asyncio
import time

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from edge.inference.answers import results
from edge.scheduling.in_flight import InFlightPhoto
from schemas.messages import Result
from schemas.topics import RESULT

_MAX_QUEUED = 256
_PAUSE_PER_PUBLISH = 4


class Deferrals:
    """Publish `deferred` results one after the other, behind final results.

    Best effort: a sender that gets none sends its photo again anyway. Bounded: beyond 256 queued results,
    further ones are dropped and counted as `result.deferral_dropped`.

    Args:
        bus: Connected by its own `run`.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[Result] = asyncio.Queue(_MAX_QUEUED)

    def defer(self, entry: InFlightPhoto, reason: str, *, retry_after_s: float | None = None) -> None:
        """Queue a `deferred` result for a photo; the second and further ones are not sent.

        Args:
            entry: The photo.
            reason: For people.
            retry_after_s: When its sender should send it again, in seconds, if it is not kept here.
        """
        if entry.deferral_sent:
            return
        try:
            self._queue.put_nowait(results.deferred(entry.photo, reason, entry.arrived_at, retry_after_s))
        except asyncio.QueueFull:
            self._bus.counters.add("result.deferral_dropped")
        else:
            entry.deferral_sent = True

    async def run(self) -> None:
        """Publish until cancelled. Safe to cancel: queued results are dropped."""
        while True:
            result = await self._queue.get()
            began = time.monotonic()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
            except UNPUBLISHED:
                self._bus.counters.add("result.deferral_dropped")
            else:
                self._bus.counters.add("result.deferred")
            # Leave most of a slow connection to final results: at most a fifth of the time goes to deferrals.
            await asyncio.sleep(_PAUSE_PER_PUBLISH * (time.monotonic() - began))
