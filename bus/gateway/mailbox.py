"""What waits to go down to one node on one kind of topic."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class PendingMessage:
    """A message on its way down.

    Args:
        topic: Where it is to be published.
        payload: Text.
        expires_at: Seconds of the monotonic clock.
    """

    topic: str
    payload: bytes
    expires_at: float = math.inf


@dataclass(slots=True)
class Mailbox:
    """Letters in order of arrival.

    Bounded: the oldest makes room for a new one, and is counted, as are those that expire.

    Args:
        most: How many may wait; with 1 only the newest counts.
        count: Told `dropped` or `expired`.
    """

    most: int
    count: Callable[[str], None]
    _waiting: deque[PendingMessage] = field(default_factory=deque)
    _last: PendingMessage | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, letter: PendingMessage) -> None:
        """Add a letter."""
        if len(self._waiting) >= self.most:
            self._waiting.popleft()
            self.count("dropped")
        self._last = letter
        self._waiting.append(letter)
        self._arrived.set()

    def again(self) -> None:
        """Send the last letter once more, also if it went out long ago."""
        if self._last is not None and not self._waiting:
            self._waiting.append(self._last)
            self._arrived.set()

    def hurry(self) -> None:
        """End a rest: the node is there."""
        self._hurried.set()

    def clear(self) -> None:
        """Forget everything, the last letter too."""
        self._waiting.clear()
        self._last = None

    async def head(self) -> PendingMessage:
        """Wait for a letter that has not expired, and return the oldest; it stays until `done`."""
        while True:
            while self._waiting:
                letter = self._waiting[0]
                if time.monotonic() < letter.expires_at:
                    return letter
                self._waiting.popleft()
                self.count("expired")
            self._arrived.clear()
            await self._arrived.wait()

    def done(self, letter: PendingMessage) -> None:
        """Take a letter off, unless others took its place meanwhile."""
        if self._waiting and self._waiting[0] is letter:
            self._waiting.popleft()

    async def rest(self, most_s: float) -> None:
        """Wait before the next attempt, at most so many seconds, less if told to hurry."""
        self._hurried.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._hurried.wait()
