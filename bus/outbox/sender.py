"""Send the messages of an outbox as they become due, on whichever connection works at present."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox import rows
from bus.outbox.contents import Contents
from bus.outbox.schedule import Entry, Schedule
from bus.outbox.sqlite import Database, StorageError
from schemas.errors import PermanentError, TransientError

log = structlog.get_logger()

Publish = Callable[[str, bytes], Awaitable[None]]
Connected = Callable[[int], Awaitable[int]]
_SENDERS = 16  # below the 20 publishes that a connection handles at once


class Sender:
    """Publish what is due; set aside what can never be sent, so that it does not stop the others.

    Args:
        contents: The messages of the outbox.
        schedule: Their order.
        database: With their rows.
        limits: Window, and the age from which a message is late.
        counters: Where sent and resent messages are counted.
        name: Prefix of the counters, and `outbox` in the log.
        transform_late: Applied to a payload that is sent later than `live_s` after its creation.
        read_id: Returns the id in a payload, for rows without a checksum.
    """

    def __init__(
        self,
        contents: Contents,
        schedule: Schedule,
        database: Database,
        limits: OutboxLimits,
        counters: Counters,
        *,
        name: str,
        transform_late: Callable[[bytes], bytes],
        read_id: rows.ReadId | None,
    ) -> None:
        self._contents = contents
        self._schedule = schedule
        self._database = database
        self._limits = limits
        self._counters = counters
        self._name = name
        self._transform_late = transform_late
        self._read_id = read_id

    async def run(self, publish: Publish, connected: Connected) -> None:
        """Send until cancelled. Safe to cancel: unanswered messages are sent again by the next run."""
        # Holds each entry at most once, see `queued`, so that the dispatcher waits only for senders.
        due: asyncio.Queue[Entry] = asyncio.Queue(self._limits.window)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resend_on_reconnect(connected), name=f"{self._name}.reconnect")
            tasks.create_task(self._dispatch(due), name=f"{self._name}.dispatch")
            for number in range(_SENDERS):
                tasks.create_task(self._send(due, publish, connected), name=f"{self._name}.send-{number}")

    async def _resend_on_reconnect(self, connected: Connected) -> None:
        number = 0
        while True:
            number = await connected(number)
            # Messages or answers of the lost connection may be lost with it.
            self._schedule.resend_soon(time.monotonic())
            self._contents.changed.set()

    async def _dispatch(self, due: asyncio.Queue[Entry]) -> None:
        while True:
            self._contents.changed.clear()  # before looking, so that a change after it is not missed
            for entry in self._schedule.take_due(time.monotonic()):
                if not entry.queued:  # while disconnected it can be due again before it was sent
                    entry.queued = True
                    await due.put(entry)
            next_due = self._schedule.next_due()
            wait_s = None if next_due is None else max(0.0, next_due - time.monotonic())
            try:
                async with asyncio.timeout(wait_s):
                    await self._contents.changed.wait()
            except TimeoutError:
                continue

    async def _send(self, due: asyncio.Queue[Entry], publish: Publish, connected: Connected) -> None:
        while True:
            entry = await due.get()
            await connected(0)  # any connection
            try:
                if (payload := await self._payload(entry)) is None:
                    continue  # answered while it waited here
                entry.tried_at = entry.tried_at or time.monotonic()
                entry.send_count += 1  # before publishing: a failed publish may have arrived anyway
                await publish(entry.topic, payload)
            except TransientError as error:
                log.debug(
                    "outbox.send_failed", outbox=self._name, message_id=entry.message_id, error=str(error)
                )
            except PermanentError as error:
                await self._set_aside(entry.message_id, str(error))
            else:
                self._counters.add(f"{self._name}.{'resent' if entry.sent else 'sent'}")
                entry.sent = True
                self._schedule.restart_timer(entry, time.monotonic())
            finally:
                entry.queued = False

    async def _payload(self, entry: Entry) -> bytes | None:
        """Return the payload of a message, None if it was just answered."""
        if entry.message_id not in self._schedule:
            return None
        # It is rarely sent again, so the cache does not keep it: then it is read from the database.
        payload = self._contents.take_payload(entry)
        if payload is None and (payload := await self._stored_payload(entry.message_id)) is None:
            return None
        late = entry.backlog or time.monotonic() - entry.created_at > self._limits.live_s
        return self._transform_late(payload) if late else payload

    async def _stored_payload(self, message_id: str) -> bytes | None:
        """Return the payload from the disk; None if the message was answered or its row is damaged."""
        found = await self._database.run(
            lambda connection: rows.read_payload(connection, message_id, self._read_id)
        )
        if isinstance(found, bytes):
            return found
        answered = self._contents.is_answered(message_id)
        if found is not None:
            self._give_up(message_id, found.reason)
        elif not answered:  # a repair of the database could not save its row
            self._give_up(message_id, "its row was lost")
        return None

    async def _set_aside(self, message_id: str, reason: str) -> None:
        """Move a message that can never be sent to the damaged rows."""
        try:
            await self._database.run(lambda connection: rows.remove(connection, message_id, reason))
        except StorageError as error:  # it stays, and is tried again when it is due again
            log.warning("outbox.set_aside_failed", message_id=message_id, error=str(error))
        else:
            self._contents.remove(message_id)
            self._counters.add(f"{self._name}.set_aside")

    def _give_up(self, message_id: str, reason: str) -> None:
        """Forget a message whose row is damaged or lost; the others are unaffected."""
        self._contents.remove(message_id)
        self._counters.add(f"{self._name}.damaged")
        log.error("outbox.damaged", outbox=self._name, message_id=message_id, reason=reason)
