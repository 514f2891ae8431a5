"""Read the retained statuses of all components: which nodes and devices there are, and how they are."""

import asyncio
import contextlib

from bus.mqtt.client import Bus
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import HANDLERS, STATUS

IDLE_S = 0.5
"""Silence in seconds after which all retained statuses have arrived: a broker does not mark their end."""

_QUEUE = 65_536


class Fleet:
    """The newest status of each component. Create it before the bus connects.

    At most `_QUEUE` statuses wait to be read; the bus drops and counts further ones.
    """

    def __init__(self, bus: Bus) -> None:
        self._messages = bus.subscribe_raw(STATUS.filter, queue=_QUEUE)
        self._found: dict[tuple[str, str], Status] = {}

    async def read(self, limit_s: float) -> list[Status]:
        """Return the statuses, sorted, after `IDLE_S` of silence or after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    async with asyncio.timeout(IDLE_S):
                        message = await self._messages.get()
                    self._add(message.topic, message.payload)
        return [self._found[key] for key in sorted(self._found)]

    def _add(self, topic: str, payload: bytes) -> None:
        names = STATUS.match(topic)
        if names is None or not payload:
            return
        with contextlib.suppress(CodecError):
            status = decode(STATUS, payload, names)
            self._found[status.node, status.name] = status


def nodes_of(statuses: list[Status]) -> list[str]:
    """Return the edge nodes that have reported, sorted."""
    return sorted({status.node for status in statuses if status.name in HANDLERS})
