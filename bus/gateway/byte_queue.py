"""The messages of one edge node on their way to the cloud's broker."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

_EACH_BYTES = 1024


class QueuedMessage(NamedTuple):
    """A message to be published as it is."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class BoundedQueue:
    """Messages in order of arrival. Bounded in bytes, a little for each message itself; full means refused.

    Args:
        most_bytes: How much may wait.
    """

    most_bytes: int
    size_bytes: int = 0
    _waiting: asyncio.Queue[QueuedMessage] = field(default_factory=asyncio.Queue)

    def has_room(self, payload_bytes: int) -> bool:
        """Tell whether one more of this size may wait."""
        return self.size_bytes + payload_bytes + _EACH_BYTES <= self.most_bytes

    def put(self, message: QueuedMessage) -> bool:
        """Add a message; False if there is no room."""
        if not self.has_room(len(message.payload)):
            return False
        self.size_bytes += len(message.payload) + _EACH_BYTES
        self._waiting.put_nowait(message)
        return True

    async def get(self) -> QueuedMessage:
        """Wait for the oldest message and take it off."""
        message = await self._waiting.get()
        self.size_bytes -= len(message.payload) + _EACH_BYTES
        return message
