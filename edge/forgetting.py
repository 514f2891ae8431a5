"""Forget photos, as the cloud orders: their answers, samples and hashes, on disk and in memory.

An order is carried out once: its id is written in its last transaction. Each deletes few rows: they are
overwritten, and all at once would fill the disk with the database's log and hold up the answers for minutes.
A sample that was published before, or waits to be shrunk, still reaches the cloud, which refuses it. A photo
of a forgotten camera that still waits in the device's outbox is answered when it arrives, and not harvested.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.outbox import damage, rows
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database, Work
from edge.harvest.sampler import Sampler
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.events import EventName
from schemas.field_types import Milliseconds
from schemas.messages import Event, Forget, Photo, Sample
from schemas.topics import EVENT, FORGET, SAMPLE

log = structlog.get_logger()

MIGRATIONS = (
    "CREATE TABLE forget_order (order_id TEXT NOT NULL)",
    "CREATE TABLE forgotten_before (device TEXT PRIMARY KEY, before_ms INTEGER NOT NULL)",
)


class _Forgotten(NamedTuple):
    """Up to when the photos of a device were forgotten."""

    device: str
    before_ms: Milliseconds


_EVERY_DEVICE = ""
_MAX_TIMES = 4096  # the newest; a name of a device is at most 63 characters

_RESULT = "CAST(result AS TEXT)"
_ANSWERED_AT = f"coalesce(iif(json_valid({_RESULT}), json_extract({_RESULT}, '$.answered_at_ms'), 0), 0)"
_TIMES = {"answer": _ANSWERED_AT, "attempt": "at_ms", "harvested": "at_ms"}
"""Tables with a row for each photo, and the time of a row."""
_SAMPLES_AT_ONCE = 16
_ROWS_AT_ONCE = 2000

T = TypeVar("T")
Covers = Callable[[str, str], bool]
"""Whether the photo of a device, by its id, is to be forgotten, whenever it was answered."""


def covering(order: Forget) -> Covers:
    """Return whether a photo in memory is to be forgotten: for want of its time, whenever it was answered."""
    ids = frozenset(order.photo_ids)
    return lambda device, photo_id: photo_id in ids or device in order.devices or order.before_ms is not None


def covers_sample(order: Forget, sample: Sample) -> bool:
    """Return whether a sample is to be forgotten."""
    before_ms = max(order.before_ms or 0, order.devices.get(sample.device, 0))
    return sample.photo_id in order.photo_ids or sample.harvested_at_ms < before_ms


class Forgetting:
    """Carries out the orders of one handler.

    Args:
        bus: Not running yet.
        node: This edge.
        name: Its handler.
        database: With all tables of the edge.
        outbox: Of samples.
        sampler: Knows the hashes, the caps and the photos for labels.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        name: str,
        database: Database,
        outbox: Outbox,
        sampler: Sampler,
    ) -> None:
        self._bus = bus
        self._node, self._name = node, name
        self._database = database
        self._outbox = outbox
        self._sampler = sampler
        self._orders: Subscription[Forget] = bus.subscribe(FORGET, optional=True, node=node)
        self.in_memory: list[Callable[[Covers], None]] = []
        """Called with the photos, devices and times to forget."""
        self._before_ms: dict[str, int] = {}

    async def load(self) -> Callable[[Photo, int], bool]:
        """Read the times up to which photos were forgotten; return `is_forgotten`.

        Call it once, before the first photo.

        Raises:
            StorageError: The database cannot be read.
        """
        self._before_ms = await self._database.run(_times)
        return self.is_forgotten

    def is_forgotten(self, photo: Photo, clock_offset_ms: int) -> bool:
        """Return whether a photo was taken before the time up to which its device's photos are forgotten.

        It may have waited in the device's outbox meanwhile. One without a time is new.

        Args:
            photo: That arrived.
            clock_offset_ms: The edge's clock minus that of the device, by which the order's time is.
        """
        before_ms = max(self._before_ms.get(photo.device, 0), self._before_ms.get(_EVERY_DEVICE, 0))
        return photo.taken_at_ms is not None and photo.taken_at_ms + clock_offset_ms < before_ms

    async def run(self) -> None:
        """Carry out orders until cancelled. Safe to cancel: the broker retains the newest order."""
        done = await self._on_disk(_last_order)
        self._bus.report_later(forgotten=done)
        async for delivery in self._orders:
            try:
                order = delivery.message() if delivery.payload else None
            except CodecError as error:
                log.warning("forget.malformed", error=str(error))
                self._bus.counters.add("forget.malformed")
            else:
                if order is not None and order.order_id != done:
                    await self._carry_out(order)
                    done = order.order_id
                    await self._bus.report(forgotten=done)
            delivery.ack()

    async def _carry_out(self, order: Forget) -> None:
        self._before_ms = await self._on_disk(partial(_raise_times, order=order))  # first: photos arrive
        counts = {"samples": await self._delete_samples(order)}
        deleted = {table: await self._delete_rows(order, table) for table in _TIMES}
        await self._on_disk(partial(_finish, order=order))
        self._sampler.forget(covering(order), frozenset(deleted["harvested"]))
        for forget in self.in_memory:
            forget(covering(order))
        counts |= {table: len(photo_ids) for table, photo_ids in deleted.items()}
        facts: dict[str, str | int | float | bool] = {"order_id": order.order_id, **counts}
        log.info("photos.forgotten", **facts)
        event = Event(
            node=self._node,
            name=self._name,
            event=EventName.PHOTOS_FORGOTTEN,
            at_ms=now_ms(),
            facts=facts,
        )
        await self._bus.connected()  # a retained order comes while the connection is still being proven
        with contextlib.suppress(*UNPUBLISHED):  # the Status confirms the order
            await self._bus.publish(EVENT, event, node=self._node, name=self._name)

    async def _delete_samples(self, order: Forget) -> int:
        """Delete the samples in the outbox that are to be forgotten; return their number."""
        samples = await self._chosen_samples(order)
        for start in range(0, len(samples), _SAMPLES_AT_ONCE):
            some = samples[start : start + _SAMPLES_AT_ONCE]
            await self._on_disk(partial(_delete_messages, photo_ids=some))
            self._outbox.discard(some)
        return len(samples)

    async def _delete_rows(self, order: Forget, table: str) -> list[str]:
        """Delete the rows of an order in a table; return the ids of their photos."""
        last = await self._on_disk(partial(_last_row, table=table))
        deleted: list[str] = []
        for start in range(0, last + 1, _ROWS_AT_ONCE):
            some = range(start, start + _ROWS_AT_ONCE)
            deleted += await self._on_disk(partial(delete, order=order, table=table, numbers=some))
        return deleted

    async def _on_disk(self, work: Work[T]) -> T:
        return await retry_until_ok(self._bus, "disk", lambda: self._database.run(work))

    async def _chosen_samples(self, order: Forget) -> list[str]:
        """Return the ids of the samples in the outbox that are to be forgotten."""
        waiting = await self._on_disk(_samples)
        if not order.devices and order.before_ms is None:
            return sorted(set(waiting) & set(order.photo_ids))
        chosen: list[str] = []
        for start in range(0, len(waiting), _SAMPLES_AT_ONCE):  # in between, photos are answered
            some = waiting[start : start + _SAMPLES_AT_ONCE]
            found = await self._on_disk(partial(_read, photo_ids=some))
            chosen += [sample.photo_id for sample in found if covers_sample(order, sample)]
        return chosen


def _last_order(connection: sqlite3.Connection) -> str | None:
    found = connection.execute("SELECT order_id FROM forget_order").fetchone()
    return None if found is None else str(found[0])


def _times(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(damage.read_rows(connection, "forgotten_before", _Forgotten))


def _samples(connection: sqlite3.Connection) -> list[str]:
    """Return the ids of the samples in the outbox that are shrunk already."""
    found = connection.execute("SELECT id FROM outbox WHERE id NOT IN (SELECT photo_id FROM unshrunk)")
    return [str(photo_id) for (photo_id,) in found]


def _read(connection: sqlite3.Connection, photo_ids: list[str]) -> list[Sample]:
    """Return samples of the outbox; damaged ones, which are set aside, are left out."""
    found = []
    for photo_id in photo_ids:
        head = connection.execute("SELECT topic FROM outbox WHERE id = ?", (photo_id,)).fetchone()
        payload = None if head is None else rows.read_payload(connection, photo_id, None)
        if isinstance(payload, bytes):
            with contextlib.suppress(CodecError):
                found.append(decode(SAMPLE, payload, SAMPLE.match(str(head[0])) or {}))
    return found


def _delete_messages(connection: sqlite3.Connection, photo_ids: list[str]) -> None:
    for photo_id in photo_ids:
        rows.delete(connection, photo_id)


def _last_row(connection: sqlite3.Connection, table: str) -> int:
    (last,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()  # noqa: S608  # text of the code
    return int(last)


def delete(connection: sqlite3.Connection, order: Forget, table: str, numbers: range) -> list[str]:
    """Delete the rows of an order; return the ids of their photos.

    Args:
        connection: In a transaction.
        order: Photos to forget.
        table: One of those with a row for each photo.
        numbers: Of the rows that are looked at.
    """
    deleted = []
    for condition, values in _conditions(order, _TIMES[table]):
        rows_of = f"FROM {table} WHERE seq BETWEEN ? AND ? AND {condition}"
        bounds = (numbers[0], numbers[-1], *values)
        deleted += [str(one) for (one,) in connection.execute(f"SELECT photo_id {rows_of}", bounds)]
        connection.execute(f"DELETE {rows_of}", bounds)
    return deleted


def _finish(connection: sqlite3.Connection, order: Forget) -> None:
    """Delete the damaged rows of an order, and note that it was carried out."""
    damage.forget(connection, set(order.photo_ids), list(order.devices), order.before_ms)
    connection.execute("DELETE FROM forget_order")
    connection.execute("INSERT INTO forget_order (order_id) VALUES (?)", (order.order_id,))


def _raise_times(connection: sqlite3.Connection, order: Forget) -> dict[str, int]:
    """Note and return up to when photos are forgotten, for those that a device has not sent yet."""
    times = dict(order.devices)
    if order.before_ms is not None:
        times[_EVERY_DEVICE] = order.before_ms
    connection.executemany(
        "INSERT INTO forgotten_before VALUES (?, ?) ON CONFLICT (device) "
        "DO UPDATE SET before_ms = max(before_ms, excluded.before_ms)",
        list(times.items()),
    )
    connection.execute(
        "DELETE FROM forgotten_before WHERE device IN "
        "(SELECT device FROM forgotten_before ORDER BY device = '' DESC, before_ms DESC LIMIT -1 OFFSET ?)",
        (_MAX_TIMES,),
    )
    return _times(connection)


def _conditions(order: Forget, time: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield conditions with their values; a row that meets one is about a photo of the order."""
    yield "photo_id IN (SELECT value FROM json_each(?))", (json.dumps(order.photo_ids),)
    for device, before_ms in order.devices.items():
        yield f"device = ? AND {time} < ?", (device, before_ms)
    if order.before_ms is not None:
        yield f"{time} < ?", (order.before_ms,)
