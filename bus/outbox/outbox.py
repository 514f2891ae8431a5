"""Durable outbox: keep each message on disk, and send it again, until the answer with its id arrives.

A PUBACK only means that the message is in the broker's memory. So a Photo stays here until its Result, and a
Sample until its Receipt; receivers are idempotent by id. The window of unanswered messages is the system's
backpressure.
"""

import sqlite3
import sys
import time
from collections.abc import Callable, Iterable

import structlog

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox import rows
from bus.outbox.admission import Item, OutboxFullError, check_disk, full, monotonic_time, unchanged
from bus.outbox.contents import Contents
from bus.outbox.overdue import describe
from bus.outbox.schedule import Entry, Schedule
from bus.outbox.sender import Connected, Publish, Sender
from bus.outbox.silence import Silence
from bus.outbox.sqlite import Database, StorageError, Work

__all__ = ["Item", "Outbox", "OutboxFullError"]

log = structlog.get_logger()


class Outbox:
    """Durable store-and-forward for messages that are answered.

    Bounded: when full, it refuses new messages with `OutboxFullError`, or drops the oldest unsent ones if
    configured so. When the disk is nearly full it refuses. Both are counted.

    Args:
        database: Opened with `MIGRATIONS` among its migrations.
        limits: Bounds and delays.
        counters: Where sent, resent, answered and refused messages are counted.
        name: Prefix of the counters, and `outbox` in the log: `photo` or `sample`.
        transform_late: Applied to a payload that is sent later than `live_s` after its creation.
        read_id: Returns the id in a payload, given its topic too; raises CodecError. It checks messages of
            versions that stored no checksum.
        sparing: While no answer arrives at all, repeat a single message, for a link where bytes cost.
    """

    MIGRATIONS = (
        """
        CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            topic TEXT NOT NULL,
            payload BLOB NOT NULL,
            created_ms INTEGER NOT NULL
        )
        """,
        "ALTER TABLE outbox ADD COLUMN checksum TEXT",
    )

    def __init__(
        self,
        database: Database,
        limits: OutboxLimits,
        counters: Counters,
        *,
        name: str,
        transform_late: Callable[[bytes], bytes] = unchanged,
        read_id: rows.ReadId | None = None,
        sparing: bool = False,
    ) -> None:
        self._database = database
        self._limits = limits
        self._counters = counters
        self._name = name
        self._schedule = Schedule(
            limits, silence=Silence(after_s=limits.resend_first_s / 2) if sparing else None
        )
        self._contents = Contents(limits, self._schedule)
        self._sender = Sender(
            self._contents,
            self._schedule,
            database,
            limits,
            counters,
            name=name,
            transform_late=transform_late,
            read_id=read_id,
        )

    def __len__(self) -> int:
        """Return the number of messages that are not answered."""
        return len(self._contents)

    @property
    def size_bytes(self) -> int:
        """Sum of the payloads, in bytes."""
        return self._contents.size_bytes

    @property
    def unanswered(self) -> int:
        """Number of messages that were sent and are not answered."""
        return self._schedule.unanswered

    def send_count(self, message_id: str) -> int:
        """Return how often a message may have reached the broker, 0 if it does not wait for an answer.

        Includes failed publishes. A message of an earlier run counts as sent twice, because it may have been.
        """
        return self._schedule.send_count(message_id)

    def overdue(self, age_s: float) -> str | None:
        """Return a sentence about messages first tried more than `age_s` seconds ago; None without any."""
        return describe(self._schedule.overdue(time.monotonic() - age_s), self._name)

    def oldest_s(self) -> float:
        """Return the age of the oldest message in seconds, 0 without one."""
        created_at = self._schedule.oldest_created_at()
        return 0.0 if created_at is None else max(0.0, time.monotonic() - created_at)

    async def load(self) -> None:
        """Load the messages of an earlier run; call once, before `run`.

        A damaged row is set aside and counted; the others are loaded.

        Raises:
            StorageError: The disk failed.
        """
        found, damaged = await self._database.run(rows.load)
        for row in found:
            # The earlier run may have sent it: with a count of 1, a `duplicate` answer would be misread.
            created_at = monotonic_time(row.created_ms, self._limits.live_s)
            entry = Entry(row.message_id, sys.intern(row.topic), row.size_bytes, created_at, send_count=2)
            self._contents.add(entry)
        if damaged:
            self._counters.add(f"{self._name}.damaged", damaged)
        if found:
            self._counters.add(f"{self._name}.restored", len(found))
            log.info("outbox.loaded", outbox=self._name, messages=len(found), bytes=self.size_bytes)

    async def put(self, message_id: str, topic: str, payload: bytes) -> bool:
        """Store a message and send it; when this returns, it is on the disk.

        If cancelled, the message may be stored, and is then sent by the next run.

        Returns:
            False if the outbox already has a message with that id; nothing changes then.

        Raises:
            OutboxFullError: The outbox is full and configured to refuse, or the disk is nearly full.
            StorageError: The disk failed.
        """
        item = await self.admit(message_id, topic, payload)
        if item is None:
            return False
        try:
            await self._database.run(lambda connection: self.write(connection, item))
        except BaseException:  # also a cancellation
            self.abort(item)
            raise
        self.commit(item)
        return True

    async def admit(self, message_id: str, topic: str, payload: bytes) -> Item | None:
        """Reserve room for a message: the first step of `put`, for a caller with its own transaction.

        `write`, and then `commit` or `abort`, must follow.

        Returns:
            None if the outbox already has a message with that id.

        Raises:
            OutboxFullError: As for `put`.
        """
        if message_id in self._contents:
            return None
        check_disk(self._database, self._limits, len(payload), self._counters, self._name)
        # A loop: while an old message is dropped, another caller may take its room, or put the same message.
        while not self._contents.has_room(len(payload)):
            await self._make_room(len(payload))
            if message_id in self._contents:
                return None
        self._contents.reserve(message_id, len(payload))
        return Item(message_id, topic, payload, time.time_ns() // 1_000_000)

    @staticmethod
    def write(connection: sqlite3.Connection, item: Item) -> None:
        """Insert an admitted message, in the caller's transaction: the second step of `put`."""
        rows.insert(connection, item.message_id, item.topic, item.payload, item.created_ms)

    def commit(self, item: Item) -> None:
        """Send a message whose transaction was committed: the third step of `put`."""
        # Interned: up to 100 000 entries share a few topic names.
        entry = Entry(item.message_id, sys.intern(item.topic), len(item.payload), time.monotonic())
        self._contents.add(entry, item.payload)
        self._counters.add(f"{self._name}.accepted")

    def abort(self, item: Item) -> None:
        """Release the room of a message whose transaction failed: the third step of `put` otherwise."""
        self._contents.release(item.message_id)

    async def mark_answered(self, message_id: str, record: Work[None] | None = None) -> bool:
        """Remove a message whose final answer arrived.

        Args:
            message_id: The id in the answer.
            record: Work for the same transaction, so that the answer is recorded exactly once.

        Returns:
            False if the message is not in the outbox, as for a duplicate answer; `record` is not run then.

        Raises:
            StorageError: The disk failed; the message stays and is sent again.
        """
        if message_id not in self._schedule:
            self._counters.add(f"{self._name}.answered_again")
            self._schedule.answered(time.monotonic())
            return False

        def remove(connection: sqlite3.Connection) -> bool:
            if not rows.delete(connection, message_id):
                return False  # a duplicate answer that was queued behind the first
            if record is not None:
                record(connection)
            return True

        self._contents.being_answered.add(message_id)
        try:
            # A loss of power may bring back a message whose answer has no record: it is then sent again.
            removed = await self._database.run(remove, synced=record is not None)
            self._contents.remove(message_id)  # after the commit: if that fails, the message is sent again
            self._schedule.answered(time.monotonic())
        finally:
            self._contents.being_answered.discard(message_id)
        self._counters.add(f"{self._name}.{'answered' if removed else 'answered_again'}")
        return removed

    def discard(self, message_ids: Iterable[str]) -> None:
        """Drop messages whose rows the caller has deleted: they are not wanted any more."""
        for message_id in message_ids:
            if message_id in self._schedule:
                self._contents.remove(message_id)
                self._counters.add(f"{self._name}.discarded")

    def defer(self, message_id: str, retry_after_s: float | None = None) -> None:
        """Postpone sending a message again, as its receiver asked.

        Args:
            message_id: The id in the answer.
            retry_after_s: Delay in seconds if the receiver does not keep the message, longer for each further
                attempt; None if it does, and will answer later.
        """
        self._schedule.defer(message_id, time.monotonic(), retry_after_s)
        self._contents.changed.set()

    async def wait_until_empty(self) -> None:
        """Wait until every message is answered. Safe to cancel."""
        await self._contents.wait_until_empty()

    async def wait_for_room(self) -> None:
        """Wait until there are fewer messages than the window has places. Safe to cancel."""
        await self._contents.wait_for_room()

    async def run(self, publish: Publish, connected: Connected) -> None:
        """Send messages until cancelled. Safe to cancel: unanswered ones are sent again by the next run.

        Args:
            publish: Publishes a payload on a topic; raises TransientError if that fails.
            connected: Waits for a connection with a number greater than the given one; returns its number.
        """
        await self._sender.run(publish, connected)

    async def _make_room(self, size_bytes: int) -> None:
        drops = self._limits.when_full == "drop-oldest" and self._contents.fits_beside_sent(size_bytes)
        oldest = self._schedule.oldest_unsent() if drops else None
        # Removed first: while its row is deleted, it must neither be sent nor be dropped for another message.
        entry = None if oldest is None else self._contents.remove(oldest)
        if oldest is None or entry is None:
            self._counters.add(f"{self._name}.refused_outbox_full")
            raise full(self._limits, size_bytes, self.size_bytes, len(self), self._name)
        try:
            await self._database.run(lambda connection: rows.delete(connection, oldest))
        except StorageError:
            self._contents.restore(entry)  # its row is still there
            raise
        self._counters.add(f"{self._name}.dropped_oldest")
        log.warning("outbox.dropped_oldest", outbox=self._name, message_id=oldest)
