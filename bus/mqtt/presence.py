"""The Status of a component: its fields, its degraded parts, its last will, and publishing it."""

import asyncio
import contextlib
import secrets
import time
from typing import NamedTuple

import structlog
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.connection.connection import BrokerConnection
from bus.mqtt.errors import BrokerConnectionError, MessageTooLargeError, PublishRefusedError
from schemas import distribution
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Status
from schemas.text import escaped
from schemas.topics import STATUS

log = structlog.get_logger()

_WAIT_S = 10.0
_OFFLINE_PUBLISH_S = 2.0


def now_ms() -> int:
    """Return the time as milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Problem(NamedTuple):
    """Why a part does not work, and since when, in seconds of the monotonic clock."""

    since: float
    reason: str


class Presence:
    """Builds the Status of a component.

    Args:
        node: Its node, or `cloud`.
        name: Its name on that node: a device's, or a reserved one such as `edge`.
        every_s: Interval between Status messages, in seconds.
        dataset: Where the dataset is that the component uses; None if it uses none.

    Raises:
        TopicError: Node or name is not a DNS label.
    """

    def __init__(self, node: str, name: str, *, every_s: float = 15.0, dataset: str | None = None) -> None:
        self.topic = STATUS.name(node=node, name=name)
        self.node = node
        self.name = name
        self.every_s = every_s
        self._problems: dict[str, Problem] = {}
        self.unpublished = False
        """Whether something changed since the last Status was sent."""
        self._status = Status(
            node=node,
            name=name,
            state="online",
            at_ms=now_ms(),
            since_ms=now_ms(),
            software=distribution.version(),
            run_id=secrets.token_hex(8),  # lets the gateway detect restarts, and `is_own` earlier runs
            dataset=dataset,
        )

    def update(self, **fields: object) -> None:
        """Set fields of the Status, for example `model`."""
        self.unpublished = True
        self._status = structs.replace(self._status, **fields)

    def degrade(self, part: str, reason: str) -> bool:
        """Record that a part of the component does not work; return True if it worked until now."""
        self.unpublished = True
        is_new = part not in self._problems
        # A changed reason is still the same outage.
        since = time.monotonic() if is_new else self._problems[part].since
        # Names of files and words of a camera get into reasons; no message can have bytes that are no text.
        self._problems[part] = Problem(since, escaped(reason, MAX_TEXT_CHARS))
        return is_new

    def recover(self, part: str) -> float | None:
        """Record that a part works; return its outage in seconds, None if it was not degraded."""
        if (problem := self._problems.pop(part, None)) is None:
            return None
        self.unpublished = True
        return time.monotonic() - problem.since

    def degraded_reason(self) -> str | None:
        """Return the reasons of all degraded parts; None if the component is `online`."""
        return "; ".join(problem.reason for problem in self._problems.values()) or None

    def status(self, counters: Counters, *, offline: str | None = None) -> Status:
        """Return the Status as of now.

        Args:
            counters: Values for its counters.
            offline: Why the component goes offline; None if it does not.
        """
        reason = offline or self.degraded_reason()
        return structs.replace(
            self._status,
            state="offline" if offline else "degraded" if reason else "online",
            reason=reason and reason[:MAX_TEXT_CHARS],
            at_ms=now_ms(),
            counters=counters.snapshot(),
        )

    def is_own(self, payload: bytes) -> bool:
        """Return True for a Status that this run published while online; False for a last will."""
        try:
            status = decode(STATUS, payload, {"node": self.node, "name": self.name})
        except CodecError:
            return False
        return status.run_id == self._status.run_id and status.state != "offline"


class Reporter:
    """The Status of one component, on whichever connection it has at present.

    Args:
        presence: Builds the Status; None for a client without one: then nothing is published.
        counters: Part of the Status.
    """

    def __init__(self, presence: Presence | None, counters: Counters) -> None:
        self._presence = presence
        self._counters = counters
        self._connection: BrokerConnection | None = None
        self._turn = asyncio.Lock()
        self.is_done = False
        """Whether its work is done: then no Status with `offline` is left at the broker."""

    def attach(self, connection: BrokerConnection | None) -> None:
        """Use a connection that works, or none."""
        self._connection = connection

    def update(self, **fields: object) -> None:
        """Change fields of the Status without publishing it."""
        if self._presence is not None:
            self._presence.update(**fields)

    async def degrade(self, part: str, reason: str) -> None:
        """Mark a part as not working; log it and publish the Status if the reason is new."""
        if self._presence is None:
            return
        before = self._presence.degraded_reason()
        level = log.warning if self._presence.degrade(part, reason) else log.debug
        level("bus.degraded", part=part, reason=reason)
        if self._presence.degraded_reason() != before:
            await self.publish_if_connected()

    async def recover(self, part: str) -> None:
        """Mark a part as working again; does nothing if it was not degraded."""
        if self._presence is None or (outage_s := self._presence.recover(part)) is None:
            return
        log.info("bus.recovered", part=part, outage_s=round(outage_s, 1))
        await self.publish_if_connected()

    async def publish_if_connected(self) -> None:
        """Publish the Status now if there is a connection, otherwise it is published on connecting."""
        if (connection := self._connection) is not None:
            with contextlib.suppress(BrokerConnectionError):  # published again on reconnecting
                await self.publish(connection)

    async def publish(self, connection: BrokerConnection) -> None:
        """Publish the Status and wait a little for its PUBACK.

        A PUBACK that is late, behind a photo on a slow link, is not an error: whether the connection is alive
        is decided by the bytes that move.

        Raises:
            BrokerConnectionError: The connection was lost.
        """
        if self._presence is None:
            return
        try:
            async with asyncio.timeout(_WAIT_S), self._turn:
                # One at a time: on a slow link they would pile up behind a photo. The next one is complete.
                if not connection.publisher.is_first_waiting():
                    await self._send(connection, self._presence)
        except TimeoutError:
            log.debug("bus.status_late", topic=self._presence.topic)

    async def _send(
        self, connection: BrokerConnection, presence: Presence, *, offline: str | None = None
    ) -> None:
        payload = encode(STATUS, presence.status(self._counters, offline=offline))
        presence.unpublished = False
        try:
            await connection.publish(presence.topic, payload, retain=True, first=True)
        except (PublishRefusedError, MessageTooLargeError) as error:
            log.warning("bus.status_refused", topic=presence.topic, error=str(error))

    async def publish_offline(self, connection: BrokerConnection) -> None:
        """Publish `offline` on a connection that still works.

        The broker does not send the will when a client disconnects properly, which aiomqtt does even when an
        exception ends the connection.
        """
        if self._presence is None:
            return
        with contextlib.suppress(BrokerConnectionError, TimeoutError):
            async with asyncio.timeout(_OFFLINE_PUBLISH_S):
                connection.allow_last_publish()
                if self.is_done:
                    await connection.publish(self._presence.topic, b"", retain=True, first=True)
                else:
                    await self._send(connection, self._presence, offline="it was stopped")

    async def run(self, connection: BrokerConnection) -> None:
        """Publish the Status at intervals until cancelled. Safe to cancel.

        Raises:
            BrokerConnectionError: The connection was lost.
        """
        while self._presence is not None:
            await asyncio.sleep(self._presence.every_s)
            await self.publish(connection)
