"""The way of a label: on the disk, for a while with undo, then sent until it is recorded."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from bus.config import OutboxLimits
from bus.diagnosis.sentence import Sentence
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.observability.measurements import Measurement, outbox_measurements
from bus.outbox.damage import set_aside
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.sqlite import Database
from console.access import audit_trail
from console.access.audit_trail import Entry
from schemas.codec import decode, encode
from schemas.errors import CodecError, TransientError
from schemas.events import EventName
from schemas.messages import Event, Feedback
from schemas.topics import CLOUD, FEEDBACK

log = structlog.get_logger()

HELD_MIGRATIONS = (
    """
    CREATE TABLE held_label (
        id TEXT PRIMARY KEY,
        payload BLOB NOT NULL,
        due_ms INTEGER NOT NULL
    )
    """,
)
MAX_HELD = 5_000
"""Most labels that wait to be sent; a further one is refused."""
_RETRY_S = 2.0
_OLD_COLLECTOR = ("photo_id", "label", "by")


class Held(NamedTuple):
    """A label that can still be undone.

    Args:
        label_id: See `label_id`.
        feedback: The label.
        due_ms: When it is sent, milliseconds since 1970.
    """

    label_id: str
    feedback: Feedback
    due_ms: int


def label_id(photo_id: str, label: str, by: str, at_ms: int) -> str:
    """Return the id of a label: 32 hexadecimal digits, from what a collector's answer has too."""
    return hashlib.blake2b(f"{photo_id}\n{at_ms}\n{label}\n{by}".encode(), digest_size=16).hexdigest()


class LabelSender:
    """Labels that no collector has confirmed. Bounded: `MAX_HELD`, and the limits of the outbox.

    A label is on the disk when `give` returns, and stays there until a collector reports its outcome:
    the console can be killed at any moment. After a restart, labels that could be undone are sent.

    Args:
        database: Opened with the migrations of `Outbox` and `HELD_MIGRATIONS`.
        bus: Where labels are published.
        limits: Of the outbox.
        undo_s: How long a label can be undone, in seconds.
        on_recorded: Called with the label's photo and the outcome, as `Store.label` returns it.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        limits: OutboxLimits,
        *,
        undo_s: float,
        on_recorded: Callable[[str, str], None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._undo_s = undo_s
        self._on_recorded = on_recorded
        self._limits = limits
        self._outbox = Outbox(database, limits, bus.counters, name="label")
        self._held: dict[str, Held] = {}
        self._sent: dict[str, Feedback] = {}
        self._due = asyncio.Event()
        self._answered: asyncio.Queue[str] = asyncio.Queue()  # at most one entry per label that was sent

    def __len__(self) -> int:
        """Return the number of labels that no collector has recorded yet."""
        return len(self._held) + len(self._outbox)

    def measurements(self) -> Iterator[Measurement]:
        """Yield how full the outbox is, for `/metrics`."""
        return outbox_measurements("label", self._outbox, self._limits)

    async def load(self) -> None:
        """Load the labels of earlier runs; call once, before `run`."""
        await self._outbox.load()
        held, self._sent = await self._database.run(_read)
        self._held = {key: Held(key, feedback, 0) for key, feedback in held.items()}

    async def give(self, labels: Sequence[Feedback], entry: Entry) -> list[str]:
        """Put labels on the disk together with their entry in the audit trail; return their ids.

        Raises:
            OutboxFullError: Too many labels wait.
            StorageError: The disk failed; no label is given.
        """
        if len(self._held) + len(labels) > MAX_HELD:
            raise OutboxFullError(
                Sentence("%(count)s labels wait to be sent", count=len(self._held)),
                hint=Sentence("is the broker reachable?"),
            )
        due_ms = now_ms() + int(self._undo_s * 1000)
        held = [Held(_id_of(one), one, due_ms) for one in labels]

        def write(connection: sqlite3.Connection) -> None:
            rows = [(one.label_id, encode(FEEDBACK, one.feedback), due_ms) for one in held]
            connection.executemany("INSERT OR REPLACE INTO held_label VALUES (?, ?, ?)", rows)
            audit_trail.write(connection, entry)

        await self._database.run(write)
        self._held |= {one.label_id: one for one in held}
        self._due.set()
        return [one.label_id for one in held]

    async def take_back(
        self, ids: Sequence[str], entry_of: Callable[[Sequence[Feedback]], Entry]
    ) -> list[str]:
        """Take labels back; return the photos of those that were not sent yet.

        Args:
            ids: Of the labels.
            entry_of: Returns the entry of the audit trail for those that are taken back.
        """
        taken = [self._held.pop(key) for key in ids if key in self._held]
        if not taken:
            return []
        entry = entry_of([one.feedback for one in taken])

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM held_label WHERE id = ?", [(one.label_id,) for one in taken])
            audit_trail.write(connection, entry)

        try:
            await self._database.run(write)
        except BaseException:
            self._held |= {one.label_id: one for one in taken}
            raise
        return [one.feedback.photo_id for one in taken]

    def take_event(self, event: Event) -> None:
        """Note that a collector has recorded a label of any sender."""
        if event.event != EventName.FEEDBACK_RECORDED or event.node != CLOUD:
            return  # only a collector records: an edge must not end the way of a label
        facts = {name: event.facts.get(name) for name in (*_OLD_COLLECTOR, "at_ms", "outcome")}
        answered = [key for key, one in self._sent.items() if _is_answer(facts, one)]
        for key in answered:
            del self._sent[key]
            self._answered.put_nowait(key)
        self._on_recorded(str(facts["photo_id"]), str(facts["outcome"]))

    async def run(self) -> None:
        """Send labels until cancelled. Safe to cancel: what is not recorded is sent by the next run."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._outbox.run(self._bus.publish_bytes, self._bus.connected), name="labels.send"
            )
            tasks.create_task(self._release(), name="labels.release")
            tasks.create_task(self._answer(), name="labels.answer")

    async def _release(self) -> None:
        """Hand labels over to the outbox when they can no longer be undone."""
        while True:
            self._due.clear()
            now = now_ms()
            due = [one for one in self._held.values() if one.due_ms <= now]
            try:
                for one in due:
                    await self._send(one)
            except TransientError as error:
                log.warning("label.waits", labels=len(self._held), error=str(error))
                await asyncio.sleep(_RETRY_S)
            await self._until_due()

    async def _until_due(self) -> None:
        first = min((one.due_ms for one in self._held.values()), default=None)
        wait_s = None if first is None else max(0.0, (first - now_ms()) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._due.wait()

    async def _send(self, held: Held) -> None:
        """Move a label from the held ones to the outbox, in one transaction."""
        feedback = held.feedback
        topic = FEEDBACK.name(node=feedback.node, device=feedback.device)
        item = await self._outbox.admit(held.label_id, topic, encode(FEEDBACK, feedback))
        # After `admit`, which may wait: from here on it can no longer be undone.
        if self._held.pop(held.label_id, None) is None:
            if item is not None:
                self._outbox.abort(item)
            return

        def write(connection: sqlite3.Connection) -> None:
            if item is not None:
                Outbox.write(connection, item)
            connection.execute("DELETE FROM held_label WHERE id = ?", (held.label_id,))

        try:
            await self._database.run(write)
        except BaseException:
            self._held[held.label_id] = held
            if item is not None:
                self._outbox.abort(item)
            raise
        self._sent[held.label_id] = feedback
        if item is not None:
            self._outbox.commit(item)

    async def _answer(self) -> None:
        """Remove recorded labels from the disk, however long it fails: the event arrives only once."""
        while True:
            label_id = await self._answered.get()
            await retry_until_ok(self._bus, "disk", partial(self._outbox.mark_answered, label_id))


def _id_of(feedback: Feedback) -> str:
    return label_id(feedback.photo_id, feedback.label, feedback.by, feedback.at_ms or 0)


def _is_answer(facts: Mapping[str, object], sent: Feedback) -> bool:
    """Return whether an event's facts are about a label; collectors before version 0.2 leave out its time."""
    return (
        all(facts[name] == getattr(sent, name) for name in _OLD_COLLECTOR)
        and facts["at_ms"] in (None, sent.at_ms)
    )  # fmt: skip


def _read(connection: sqlite3.Connection) -> tuple[dict[str, Feedback], dict[str, Feedback]]:
    """Return the held labels, and those in the outbox, by id; a damaged held one is set aside."""
    held, sent = {}, {}
    rows = connection.execute("SELECT rowid, id, payload FROM held_label ORDER BY due_ms").fetchall()
    for row, key, payload in rows:
        try:
            held[str(key)] = _decoded(payload)
        except (CodecError, TypeError) as error:
            set_aside(connection, "held_label", row, f"a label cannot be read: {error}")
    for key, payload in connection.execute("SELECT id, payload FROM outbox").fetchall():
        with contextlib.suppress(CodecError, TypeError):  # the outbox sets it aside before it is sent
            sent[key] = _decoded(payload)
    return held, sent


def _decoded(payload: object) -> Feedback:
    """Return the label in a row.

    Raises:
        CodecError: It is none.
        TypeError: The column has another type.
    """
    if not isinstance(payload, bytes):
        raise TypeError(f"expected bytes, got {type(payload).__name__}")
    return decode(FEEDBACK, payload, {})
