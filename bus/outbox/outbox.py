"""The outbox: keeps each message on disk until the answer with its id arrives.

"The answer is the acknowledgement": a broker's PUBACK says only that its memory holds the message. So a
Photo stays here until its Result, and a Sample until its Receipt, and is sent again until then. The window
of unanswered messages is the backpressure of the whole system. The receiver is idempotent by id.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.schedule import Entry, Schedule
from bus.outbox.sqlite import Database, Work
from schemas.errors import TransientError

log = structlog.get_logger()

Publish = Callable[[str, bytes], Awaitable[None]]
Connected = Callable[[int], Awaitable[int]]

_SENDERS = 16
_CACHE_BYTES = 4_000_000


class OutboxFullError(TransientError):
    """The outbox has no room: this message was not accepted."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message on its way into the outbox, admitted and not yet on the disk."""

    message_id: str
    topic: str
    payload: bytes
    created_ms: int


def unchanged(payload: bytes) -> bytes:
    """Send an old message as it is."""
    return payload


class Outbox:
    """Durable store-and-forward of messages that expect an answer.

    Full means refused with `OutboxFullError`, or the oldest unsent messages dropped if configured so; a disk
    that is nearly full means refused. All are counted.

    Args:
        database: Opened with `MIGRATIONS` among its own.
        limits: Bounds and pace.
        counters: Where sendings, resends, answers and refusals are counted.
        name: Prefix of the counters and log events: `photo` or `sample`.
        when_old: Applied to a payload that is sent later than `live_s` after it was made.
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
    )

    def __init__(
        self,
        database: Database,
        limits: OutboxLimits,
        counters: Counters,
        *,
        name: str,
        transform_late: Callable[[bytes], bytes] = unchanged,
    ) -> None:
        self._database = database
        self._limits = limits
        self._counters = counters
        self._name = name
        self._when_old = transform_late
        self._schedule = Schedule(limits)
        self._bytes = 0
        self._cached_bytes = 0
        self._admitted: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._answered = asyncio.Event()

    def __len__(self) -> int:
        """Return how many messages wait for an answer."""
        return len(self._schedule) + len(self._admitted)

    @property
    def size_bytes(self) -> int:
        """Payload bytes kept."""
        return self._bytes

    @property
    def unanswered(self) -> int:
        """How many were sent and have no answer yet."""
        return self._schedule.unanswered

    def send_count(self, message_id: str) -> int:
        """Return how often a waiting message may have left, 0 if it does not wait.

        A sending that failed may have arrived all the same. What an earlier run left counts as sent twice,
        because it may have been.
        """
        return self._schedule.send_count(message_id)

    async def load(self) -> None:
        """Take up what an earlier run left behind. Call once, before `run`."""
        rows = await self._database.run(
            lambda connection: connection.execute(
                "SELECT id, topic, length(payload), created_ms FROM outbox ORDER BY seq"
            ).fetchall()
        )
        for message_id, topic, size_bytes, created_ms in rows:
            created_at = _monotonic(created_ms)
            self._add(Entry(message_id, sys.intern(topic), size_bytes, created_at, send_count=2))
        if rows:
            self._counters.add(f"{self._name}.kept", len(rows))
            log.info("outbox.loaded", outbox=self._name, messages=len(rows), bytes=self._bytes)

    async def put(self, message_id: str, topic: str, payload: bytes) -> bool:
        """Accept a message: when this returns, it is on the disk and will be sent.

        Returns:
            False if a message of that id waits already; nothing changes then.

        Raises:
            OutboxFullError: No room, and configured to refuse.
            StorageError: The disk refused.
        """
        item = await self.admit(message_id, topic, payload)
        if item is None:
            return False
        try:
            await self._database.run(lambda connection: self.write(connection, item))
        except BaseException:
            self.abort(item)
            raise
        self.commit(item)
        return True

    async def admit(self, message_id: str, topic: str, payload: bytes) -> Item | None:
        """First of the three steps of `put`, for a caller with a transaction of its own: take room.

        `write` and then `commit` or `abort` must follow.
        """
        if message_id in self._schedule or message_id in self._admitted:
            return None
        self._check_disk(len(payload))
        while not self._has_room(len(payload)):
            await self._make_room(len(payload))
        self._admitted[message_id] = len(payload)
        self._bytes += len(payload)
        self._idle.clear()
        return Item(message_id, topic, payload, time.time_ns() // 1_000_000)

    @staticmethod
    def write(connection: sqlite3.Connection, item: Item) -> None:
        """Second step, inside a transaction of the same database."""
        connection.execute(
            "INSERT INTO outbox (id, topic, payload, created_ms) VALUES (?, ?, ?, ?)",
            (item.message_id, item.topic, item.payload, item.created_ms),
        )

    def commit(self, item: Item) -> None:
        """Third step after success: the message is on the disk, send it."""
        self.abort(item)
        entry = Entry(item.message_id, sys.intern(item.topic), len(item.payload), time.monotonic())
        if self._cached_bytes + entry.size_bytes <= _CACHE_BYTES:
            entry.payload = item.payload
            self._cached_bytes += entry.size_bytes
        self._add(entry)
        self._counters.add(f"{self._name}.accepted")

    def abort(self, item: Item) -> None:
        """Third step after failure: give the room back."""
        self._bytes -= self._admitted.pop(item.message_id)
        self._rest()

    async def mark_answered(self, message_id: str, record: Work[None] | None = None) -> bool:
        """Forget a message, because its final answer is here.

        Args:
            message_id: The id in the answer.
            record: Work for the same transaction, so that the answer is recorded exactly once.

        Returns:
            False if no such message waits, as for an answer that came twice; `record` is not run then.

        Raises:
            StorageError: The disk refused; the message stays and will be sent again.
        """
        if message_id not in self._schedule:
            self._counters.add(f"{self._name}.answered_again")
            return False

        def settle(connection: sqlite3.Connection) -> bool:
            if not connection.execute("DELETE FROM outbox WHERE id = ?", (message_id,)).rowcount:
                return False  # the same answer twice, both on their way to the disk
            if record is not None:
                record(connection)
            return True

        settled = await self._database.run(settle)
        self._forget(message_id)
        self._counters.add(f"{self._name}.{'answered' if settled else 'answered_again'}")
        return settled

    def defer(self, message_id: str) -> None:
        """Wait longer for the final answer, because the receiver has the message and says so."""
        self._schedule.defer(message_id, time.monotonic())

    async def wait_until_empty(self) -> None:
        """Wait until every message is answered."""
        await self._idle.wait()

    async def wait_for_room(self) -> None:
        """Wait until fewer messages are kept than the window takes, for a sender that can wait."""
        while len(self) >= self._limits.window:
            self._answered.clear()
            await self._answered.wait()

    async def run(self, publish: Publish, connected: Connected) -> None:
        """Send until cancelled. Safe to cancel: what has no answer is sent by the next run.

        Args:
            publish: Sends one payload to a topic; raises TransientError when it could not.
            connected: Waits for a connection later than the given number and returns its number.
        """
        due: asyncio.Queue[Entry] = asyncio.Queue(self._limits.window)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hurry_on_reconnect(connected), name=f"{self._name}.reconnect")
            tasks.create_task(self._dispatch(due), name=f"{self._name}.dispatch")
            for number in range(_SENDERS):
                tasks.create_task(self._send(due, publish, connected), name=f"{self._name}.send-{number}")

    async def _dispatch(self, due: asyncio.Queue[Entry]) -> None:
        while True:
            self._changed.clear()
            for entry in self._schedule.take(time.monotonic()):
                if not entry.queued:  # disconnected, or at a slow pace, it may be due again before it left
                    entry.queued = True
                    await due.put(entry)
            next_due = self._schedule.next_due()
            wait_s = None if next_due is None else max(0.0, next_due - time.monotonic())
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _send(self, due: asyncio.Queue[Entry], publish: Publish, connected: Connected) -> None:
        while True:
            entry = await due.get()
            await connected(0)
            try:
                if (payload := await self._payload(entry)) is None:
                    continue  # answered while it waited for its turn
                entry.send_count += 1
                await publish(entry.topic, payload)
            except TransientError as error:
                log.debug(
                    "outbox.send_failed", outbox=self._name, message_id=entry.message_id, error=str(error)
                )
            else:
                self._counters.add(f"{self._name}.{'resent' if entry.sent else 'sent'}")
                entry.sent = True
                self._schedule.left(entry, time.monotonic())
            finally:
                entry.queued = False

    async def _payload(self, entry: Entry) -> bytes | None:
        """Return what a message says, or None if it no longer waits."""
        if entry.message_id not in self._schedule:
            return None
        payload = entry.payload
        if payload is None:
            row = await self._database.run(
                lambda connection: connection.execute(
                    "SELECT payload FROM outbox WHERE id = ?", (entry.message_id,)
                ).fetchone()
            )
            if row is None:
                return None
            payload = row[0]
        self._uncache(entry)
        old = entry.backlog or time.monotonic() - entry.created_at > self._limits.live_s
        return self._when_old(payload) if old else payload

    async def _hurry_on_reconnect(self, connected: Connected) -> None:
        number = 0
        while True:
            number = await connected(number)
            self._schedule.hurry(time.monotonic())
            self._changed.set()

    def _check_disk(self, size_bytes: int) -> None:
        """Refuse while the disk is nearly full: even to forget an answered message takes room there."""
        free_bytes = self._database.free_bytes()
        if free_bytes < self._limits.min_free_bytes + size_bytes:
            self._counters.add(f"{self._name}.refused_disk_full")
            raise OutboxFullError(
                f"{self._name} outbox",
                expected=f"{self._limits.min_free_bytes + size_bytes} bytes free on its disk",
                got=free_bytes,
            )

    def _has_room(self, size_bytes: int) -> bool:
        return (
            self._bytes + size_bytes <= self._limits.max_bytes and len(self) + 1 <= self._limits.max_messages
        )

    async def _make_room(self, size_bytes: int) -> None:
        oldest = self._schedule.oldest_waiting() if self._limits.when_full == "drop-oldest" else None
        if oldest is None:
            self._counters.add(f"{self._name}.refused_outbox_full")
            raise OutboxFullError(
                f"{self._name} outbox",
                expected=f"room for {size_bytes} bytes",
                got=f"{self._bytes} of {self._limits.max_bytes} bytes in {len(self)} messages",
            )

        def delete_oldest(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM outbox WHERE id = ?", (oldest,))

        await self._database.run(delete_oldest)
        self._forget(oldest)
        self._counters.add(f"{self._name}.dropped_oldest")
        log.warning("outbox.dropped_oldest", outbox=self._name, message_id=oldest)

    def _add(self, entry: Entry) -> None:
        self._schedule.add(entry, time.monotonic())
        self._bytes += entry.size_bytes
        self._idle.clear()
        self._changed.set()

    def _forget(self, message_id: str) -> None:
        if (entry := self._schedule.remove(message_id)) is not None:
            self._bytes -= entry.size_bytes
            self._uncache(entry)
            self._changed.set()
        self._rest()

    def _uncache(self, entry: Entry) -> None:
        if entry.payload is not None:
            self._cached_bytes -= entry.size_bytes
            entry.payload = None

    def _rest(self) -> None:
        self._answered.set()
        if not len(self):
            self._idle.set()


def _monotonic(created_ms: int) -> float:
    """Return the moment on this process's monotonic clock; a clock set back counts as now."""
    age_s = max(0.0, time.time() - created_ms / 1000)
    return time.monotonic() - age_s
