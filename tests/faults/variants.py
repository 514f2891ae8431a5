"""Variants of the product that break one rule, to check that the laboratory detects it.

Each variant is what a simpler system does: rely on the broker's PUBACK, or acknowledge automatically.
"""

import contextlib
import sqlite3

import msgpack

from bus.mqtt.client import Bus
from bus.outbox.outbox import Connected, Outbox, Publish
from bus.outbox.sqlite import StorageError, Work


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
    deliver = Bus._deliver

    def acknowledge_and_deliver(self, subscription, names, incoming) -> None:
        if incoming.ack is not None:
            incoming.ack()
        deliver(self, subscription, names, incoming)

    Bus._deliver = acknowledge_and_deliver  # type: ignore[method-assign]


VARIANTS = {"outbox-on-puback": outbox_on_puback, "auto-ack": auto_ack}
