"""What an outbox holds in memory: its entries, their room, cached payloads, and who waits for a change."""

import asyncio
import time

from bus.config import OutboxLimits
from bus.outbox.schedule import Entry, Schedule

_CACHE_BYTES = 4_000_000  # payloads kept in memory until they are first sent


class Contents:
    """The entries of an outbox, and the messages that were admitted and are not yet on the disk.

    Args:
        limits: The bounds that `has_room` compares with.
        schedule: Order of sending; it has the entries.
    """

    def __init__(self, limits: OutboxLimits, schedule: Schedule) -> None:
        self._limits = limits
        self._schedule = schedule
        self._bytes = 0
        self._cached_bytes = 0
        self._admitted: dict[str, int] = {}
        self.being_answered: set[str] = set()
        """Messages whose answer arrived and whose row is being deleted."""
        self.changed = asyncio.Event()
        """Set when a message may have become due."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._removed = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of messages that are not answered."""
        return len(self._schedule) + len(self._admitted)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._schedule or message_id in self._admitted

    @property
    def size_bytes(self) -> int:
        """Sum of the payloads, in bytes."""
        return self._bytes

    def is_answered(self, message_id: str) -> bool:
        """Return True for a message whose answer arrived, also while its row is being deleted."""
        return message_id not in self._schedule or message_id in self.being_answered

    def has_room(self, size_bytes: int) -> bool:
        """Return True if a message of this size fits."""
        return (
            self._bytes + size_bytes <= self._limits.max_bytes and len(self) + 1 <= self._limits.max_messages
        )

    def fits_beside_sent(self, size_bytes: int) -> bool:
        """Return True if a message has room once all others that were not sent are dropped."""
        held_bytes = self._schedule.unanswered_bytes + sum(self._admitted.values())
        held = self._schedule.unanswered + len(self._admitted)
        return held_bytes + size_bytes <= self._limits.max_bytes and held + 1 <= self._limits.max_messages

    def reserve(self, message_id: str, size_bytes: int) -> None:
        """Reserve room for a message; `add` or `release` must follow."""
        self._admitted[message_id] = size_bytes
        self._bytes += size_bytes
        self._empty.clear()

    def release(self, message_id: str) -> None:
        """Release the room of a message that could not be stored."""
        self._bytes -= self._admitted.pop(message_id)
        self._notify()

    def add(self, entry: Entry, payload: bytes | None = None) -> None:
        """Add a message that is on the disk, in the room reserved for it if there is any.

        Args:
            entry: The message.
            payload: Cached until it is first sent, if there is room for it.
        """
        # Without a notification: nobody must take the outbox for empty between the two.
        self._bytes -= self._admitted.pop(entry.message_id, 0)
        if payload is not None and self._cached_bytes + entry.size_bytes <= _CACHE_BYTES:
            entry.payload = payload
            self._cached_bytes += entry.size_bytes
        self._schedule.add(entry, time.monotonic())
        self._count(entry)

    def restore(self, entry: Entry) -> None:
        """Add the oldest unsent message again, which was removed and is still on the disk."""
        self._schedule.restore(entry)
        self._count(entry)

    def remove(self, message_id: str) -> Entry | None:
        """Remove a message that was answered or dropped; return it, None if it is unknown."""
        if (entry := self._schedule.remove(message_id)) is not None:
            self._bytes -= entry.size_bytes
            self.take_payload(entry)
            self.changed.set()
        self._notify()
        return entry

    def take_payload(self, entry: Entry) -> bytes | None:
        """Return the cached payload of a message and drop it from the cache; None if it is not cached."""
        payload, entry.payload = entry.payload, None
        if payload is not None:
            self._cached_bytes -= entry.size_bytes
        return payload

    async def wait_until_empty(self) -> None:
        """Wait until every message is answered. Safe to cancel."""
        await self._empty.wait()

    async def wait_for_room(self) -> None:
        """Wait until there are fewer messages than the window has places. Safe to cancel."""
        while len(self) >= self._limits.window:
            self._removed.clear()
            await self._removed.wait()

    def _count(self, entry: Entry) -> None:
        self._bytes += entry.size_bytes
        self._empty.clear()
        self.changed.set()

    def _notify(self) -> None:
        self._removed.set()
        if not len(self):
            self._empty.set()
