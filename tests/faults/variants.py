"""Variants of the product that break one rule, to check that the laboratory detects it.

Each variant is what a simpler system does: rely on the broker's PUBACK, or acknowledge automatically.
"""

import contextlib
import dataclasses
import itertools
import sqlite3

import msgpack

from bus.mqtt.subscription import Subscriptions
from bus.outbox.outbox import Outbox
from bus.outbox.schedule import Schedule
from bus.outbox.sender import Connected, Publish
from bus.outbox.sqlite import Database, StorageError, Work
from schemas.messages import Sample


def outbox_on_puback() -> None:
    """Remove a message from the outbox on PUBACK, without waiting for its answer."""
    run, answered = Outbox.run, Outbox.mark_answered

    async def run_on_puback(self: Outbox, publish: Publish, connected: Connected) -> None:
        async def publish_and_forget(topic: str, payload: bytes) -> None:
            await publish(topic, payload)
            await answered(self, msgpack.unpackb(payload)["photo_id"])

        await run(self, publish_and_forget, connected)

    async def answered_or_recorded(self: Outbox, message_id: str, record: Work[None] | None = None) -> bool:
        """Record an answer although its message is already removed."""
        if await answered(self, message_id, record):
            return True
        if record is None:
            return False
        with contextlib.suppress(StorageError, sqlite3.IntegrityError):  # already recorded
            await self._database.run(record)
            return True
        return False

    Outbox.run, Outbox.mark_answered = run_on_puback, answered_or_recorded  # type: ignore[method-assign]


def auto_ack() -> None:
    """Acknowledge each delivery on arrival, as paho does by default, and empty the outbox on PUBACK.

    Automatic acknowledgement alone loses nothing, because the sender's outbox keeps each message.
    """
    outbox_on_puback()
    deliver = Subscriptions._deliver

    def acknowledge_and_deliver(self, subscription, names, incoming) -> None:
        if incoming.ack is not None:
            incoming.ack()
        deliver(self, subscription, names, incoming)

    Subscriptions._deliver = acknowledge_and_deliver  # type: ignore[method-assign]


def never_again() -> None:
    """Send each message once in a run: what is not answered then waits until the process starts again."""
    Schedule._due = lambda *_: []  # type: ignore[method-assign]  # no timer ever fires
    Schedule.next_due = lambda *_: None  # type: ignore[method-assign]
    Schedule.resend_soon = lambda *_, **__: None  # type: ignore[method-assign]  # nor a new connection


def accept_nothing() -> None:
    """Accept each photo, and forget it."""

    async def put(*_: object) -> bool:
        return True

    Outbox.put = put  # type: ignore[method-assign]


def half_accepted() -> None:
    """Accept every second photo without storing it."""
    put, numbers = Outbox.put, itertools.count()

    async def forgetful(self: Outbox, message_id: str, topic: str, payload: bytes) -> bool:
        return True if next(numbers) % 2 else await put(self, message_id, topic, payload)

    Outbox.put = forgetful  # type: ignore[method-assign]


def no_sync() -> None:
    """Commit without a sync of the disk."""
    opened = Database._open

    def unsynced(self: Database) -> sqlite3.Connection:
        connection = opened(self)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    Database._open = unsynced  # type: ignore[method-assign]


def first_picture() -> None:
    """Store each sample of a label with the picture of the first one of that label."""
    from cloud.collector import ingest  # noqa: PLC0415  # only the collector has it
    from cloud.dataset.image_check import CheckedImage  # noqa: PLC0415  # as above
    from cloud.dataset.store import Row  # noqa: PLC0415  # as above

    row_of, first = ingest.row_of, dict[str, bytes]()

    def mixed(sample: Sample, checked: CheckedImage) -> Row:
        row = row_of(sample, checked)
        return dataclasses.replace(row, image=first.setdefault(sample.label, row.image))

    ingest.row_of = mixed


VARIANTS = {
    "outbox-on-puback": outbox_on_puback,
    "auto-ack": auto_ack,
    "never-again": never_again,
    "accept-nothing": accept_nothing,
    "half-accepted": half_accepted,
    "no-sync": no_sync,
    "first-picture": first_picture,
}
