"""Messages of one topic kind that wait to be sent to one edge node."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class PendingMessage:
    """A message for an edge node.

    Args:
        topic: Topic name at the node's broker.
        payload: JSON.
        expires_at: When it is dropped, in seconds of the monotonic clock.
    """

    topic: str
    payload: bytes
    expires_at: float = math.inf


@dataclass(slots=True)
class Mailbox:
    """FIFO queue of pending messages.

    Bounded: when full, the oldest message is dropped for a new one. Dropped and expired messages are counted.

    Args:
        max_messages: Most messages that may wait; with 1, only the newest counts.
        count: Called with `dropped` or `expired`.
    """

    max_messages: int
    count: Callable[[str], None]
    _waiting: deque[PendingMessage] = field(default_factory=deque)
    _last: PendingMessage | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _retry_now: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: PendingMessage) -> None:
        """Append a message."""
        if len(self._waiting) >= self.max_messages:
            self._waiting.popleft()
            self.count("dropped")
        self._last = message
        self._waiting.append(message)
        self._arrived.set()

    def put_last_again(self) -> None:
        """Append the last message again, if none waits; does nothing before the first."""
        if self._last is not None and not self._waiting:
            self._waiting.append(self._last)
            self._arrived.set()

    def retry_now(self) -> None:
        """End a `wait_before_retry`: the node can be reached again."""
        self._retry_now.set()

    def clear(self) -> None:
        """Remove all messages and forget the last one."""
        self._waiting.clear()
        self._last = None

    async def first(self) -> PendingMessage:
        """Wait for a message that has not expired and return the oldest one, without removing it."""
        while True:
            while self._waiting:
                message = self._waiting[0]
                if time.monotonic() < message.expires_at:
                    return message
                self._waiting.popleft()
                self.count("expired")
            self._arrived.clear()
            await self._arrived.wait()

    def remove(self, message: PendingMessage) -> None:
        """Remove a message that `first` returned, unless a newer one has replaced it."""
        # It may have been dropped for a newer one while it was sent, which must not be removed instead.
        if self._waiting and self._waiting[0] is message:
            self._waiting.popleft()

    async def wait_before_retry(self, max_s: float) -> None:
        """Wait for `max_s` seconds, or until `retry_now`."""
        self._retry_now.clear()  # a call before this wait was for an earlier one
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max_s):
                await self._retry_now.wait()
