"""The word `deferred`: tells senders that the answer takes longer, and why."""

import asyncio
import time

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from edge.inference import results
from edge.inference.fair_queue import InFlightPhoto
from schemas.messages import Result
from schemas.topics import RESULT

_UNSAID = 256
_REST = 4


class Deferrals:
    """Says `deferred` to senders, one after the other and with rests between, so that answers go before.

    A courtesy: a sender that does not hear it sends its photo again all the same. Bounded: when too much is
    unsaid, a word is dropped and counted.

    Args:
        bus: Connected by its own `run`.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._unsaid: asyncio.Queue[Result] = asyncio.Queue(_UNSAID)

    def say(self, work: InFlightPhoto, reason: str) -> None:
        """Tell the sender of a photo, once."""
        if work.told:
            return
        try:
            self._unsaid.put_nowait(results.deferred(work.photo, reason, work.arrived_at))
        except asyncio.QueueFull:
            self._bus.counters.add("result.deferral_dropped")
        else:
            work.told = True

    async def run(self) -> None:
        """Say what there is to say until cancelled."""
        while True:
            result = await self._unsaid.get()
            began = time.monotonic()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
            except BrokerConnectionError:
                self._bus.counters.add("result.deferral_dropped")
            else:
                self._bus.counters.add("result.deferred")
            await asyncio.sleep(_REST * (time.monotonic() - began))
