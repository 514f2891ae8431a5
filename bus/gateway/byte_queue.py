"""Queue for the messages of one edge node to the cloud's broker."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

_OVERHEAD_BYTES = 1024
"""Counted for each message in addition to its payload, so that many small messages are bounded too."""


class QueuedMessage(NamedTuple):
    """A message to be published unchanged."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class BoundedQueue:
    """FIFO queue bounded in bytes; when full, it refuses messages.

    Args:
        max_bytes: Most bytes that may wait.
    """

    max_bytes: int
    size_bytes: int = 0
    _waiting: asyncio.Queue[QueuedMessage] = field(default_factory=asyncio.Queue)

    def has_room(self, payload_bytes: int) -> bool:
        """Return True if a payload of this size fits."""
        return self.size_bytes + payload_bytes + _OVERHEAD_BYTES <= self.max_bytes

    def put(self, message: QueuedMessage) -> bool:
        """Append a message; return False if it does not fit."""
        if not self.has_room(len(message.payload)):
            return False
        self.size_bytes += len(message.payload) + _OVERHEAD_BYTES
        self._waiting.put_nowait(message)
        return True

    async def get(self) -> QueuedMessage:
        """Wait for the oldest message and remove it."""
        message = await self._waiting.get()
        self.size_bytes -= len(message.payload) + _OVERHEAD_BYTES
        return message
