"""MQTT client that reconnects: it runs one `BrokerConnection` after the other."""

import asyncio
import contextlib
import secrets
import time
from typing import TypeVar

import structlog

from bus.backoff import ReconnectBackoff
from bus.config import Broker
from bus.metrics import Counters
from bus.mqtt.connection import (
    CONCURRENT_PUBLISHES,
    BrokerConnection,
    BrokerConnectionError,
    ClientIdentity,
    Incoming,
    Will,
    address,
    matches,
    raise_if_cancelled,
)
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import Delivery, RawMessage, Subscription
from schemas.codec import encode
from schemas.messages import Message
from schemas.topics import STATUS, Topic

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

_PROBE_S = 10.0
_OFFLINE_PUBLISH_S = 2.0
_RECONNECT_CAP_S = 10.0
_FLAPPING_CONNECTIONS = 3
_LOGGED_TOPIC_CHARS = 200


class Bus:
    """A component's MQTT client.

    `run` connects, subscribes, publishes the component's Status, and reconnects with backoff. Subscriptions
    and waiting callers outlive a lost connection.

    Args:
        broker: Address and login.
        client_id: Must be unique: the broker disconnects the older of two connections with one client id.
        password: For the broker's user name.
        presence: Builds the Status of this component; None for a client without one, such as a command.
        durable: Whether the broker keeps subscriptions and unacknowledged messages while this client is
            offline.
        counters: Where connections and messages are counted; new counters if None.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        password: str | None = None,
        presence: Presence | None = None,
        durable: bool = False,
        counters: Counters | None = None,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self.last_error = "no answer"
        """Why the last connection attempt failed or the last connection ended."""
        self._broker = broker
        self._address = address(broker)
        self._identity = ClientIdentity(client_id, password, durable)
        self._presence = presence
        self._subscriptions: list[Subscription[Message]] = []
        self._raw_queues: dict[str, asyncio.Queue[RawMessage]] = {}
        self._publish_slots = asyncio.Semaphore(CONCURRENT_PUBLISHES)
        self._connection: BrokerConnection | None = None
        """The present connection; set only while it is proven to work."""
        self._number = 0  # of the present or last connection attempt
        self._probe_returned = asyncio.Event()
        self._connected_at: float | None = None
        self._ready = asyncio.Condition()

    def subscribe(
        self, topic: Topic[M], *, queue: int = 1024, group: str | None = None, **names: str
    ) -> Subscription[M]:
        """Subscribe with the next connection; call before `run`.

        Args:
            topic: The kind of topic.
            queue: Most deliveries that may wait in this process. Must exceed the broker's
                `max_inflight_messages`, otherwise a full queue ends the connection.
            group: Share the messages among all subscribers of this group (MQTT `$share`).
            names: Values for some of the topic's names; the others match any value.

        Raises:
            TopicError: A value is not a DNS label.
        """
        topic_filter = topic.select(**names)
        subscription = Subscription(
            topic, f"$share/{group}/{topic_filter}" if group else topic_filter, asyncio.Queue(queue)
        )
        self._subscriptions.append(subscription)  # type: ignore[arg-type]  # only ever gets messages of its own topic
        return subscription

    def subscribe_raw(self, topic_filter: str, *, queue: int = 1024) -> asyncio.Queue[RawMessage]:
        """Subscribe to any MQTT filter without decoding, for diagnostics; call before `run`.

        When the queue is full, messages are dropped and counted as `bus.overflowed`.
        """
        return self._raw_queues.setdefault(topic_filter, asyncio.Queue(queue))

    def inject(self, topic: str, payload: bytes) -> None:
        """Deliver a message to the subscriptions as if the broker had retained it; call before `run`."""
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(topic)) is not None:
                delivery = Delivery(
                    subscription.topic,
                    names,
                    payload,
                    retained=True,
                    arrived_at=time.monotonic(),
                    ack=_no_ack,
                )
                subscription.queue.put_nowait(delivery)

    async def connected(self, after: int = 0) -> int:
        """Wait for a working connection with a number greater than `after` and return its number.

        A connection counts as working once the Status that it published was received from the broker. Safe to
        cancel.
        """
        if self._connection is None or self._number <= after:
            async with self._ready:
                await self._ready.wait_for(lambda: self._connection is not None and self._number > after)
        return self._number

    def unready_reason(self) -> str | None:
        """Return why this component cannot work at present, None if it can."""
        if self._connection is None:
            return f"no connection to {self._address}"
        return None if self._presence is None else self._presence.degraded_reason()

    async def publish(self, topic: Topic[M], message: M, **names: str) -> None:
        """Publish a message at QoS 1 and wait for the broker's acknowledgement.

        If cancelled, the message may or may not have been published.

        Raises:
            TopicError: A name is not a DNS label.
            BrokerConnectionError: Not connected, or the connection was lost; the broker may have the message
                all the same.
        """
        await self.publish_bytes(topic.name(**names), encode(topic, message), retain=topic.retain)

    async def publish_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish an encoded payload; otherwise like `publish`."""
        async with self._publish_slots:
            # No waiting for a connection: callers decide whether to retry, to drop, or to keep the message.
            if (connection := self._connection) is None:
                raise BrokerConnectionError(self._address, reason="not connected")
            await connection.publish(topic, payload, retain=retain)

    async def report(self, **fields: object) -> None:
        """Change fields of the Status and publish it: now if connected, otherwise on connecting.

        Args:
            fields: Fields of Status, for example `model`.
        """
        if self._presence is not None:
            self._presence.update(**fields)
            await self._publish_status_if_connected()

    def report_later(self, **fields: object) -> None:
        """Change fields of the Status without publishing: they are part of the next Status.

        Args:
            fields: Fields of Status, for example `serving`.
        """
        if self._presence is not None:
            self._presence.update(**fields)

    async def report_degraded(self, part: str, reason: str) -> None:
        """Mark a part of this component as not working; log it and publish the Status if the reason is new.

        Args:
            part: For example `camera`, `disk` or `model`; several can be degraded at the same time.
            reason: Why, for people.
        """
        if self._presence is None:
            return
        before = self._presence.degraded_reason()
        level = log.warning if self._presence.degrade(part, reason) else log.debug
        level("bus.degraded", part=part, reason=reason)
        if self._presence.degraded_reason() != before:
            await self._publish_status_if_connected()

    async def report_recovered(self, part: str) -> None:
        """Mark a part of this component as working again; does nothing if it was not degraded."""
        if self._presence is None or (outage_s := self._presence.recover(part)) is None:
            return
        log.info("bus.recovered", part=part, outage_s=round(outage_s, 1))
        await self._publish_status_if_connected()

    async def run(self) -> None:
        """Stay connected until cancelled; then publish `offline` if connected. Safe to cancel.

        Raises:
            PermanentError: The broker refuses a subscription.
        """
        reconnect = ReconnectBackoff(_RECONNECT_CAP_S)
        failed_at: float | None = None
        while True:
            self._connected_at = None
            try:
                await self._run_connection(failed_at)
            except BrokerConnectionError as error:
                now = time.monotonic()
                delay_s = reconnect.next_delay(
                    None if self._connected_at is None else now - self._connected_at
                )
                self.counters.add("bus.disconnected")
                self.last_error = error.reason
                # Only the first failure of an outage is a warning; a broker that stays down must not fill the
                # log.
                first = reconnect.failures == 1
                failed_at = now if first else failed_at
                level = log.warning if first else log.debug
                level("bus.disconnected", broker=self._address, error=str(error))
                if reconnect.short_connections == _FLAPPING_CONNECTIONS:
                    self.counters.add("bus.flapping")
                    hint = "does another client use the same id?"
                    log.warning(
                        "bus.flapping", broker=self._address, client_id=self._identity.client_id, hint=hint
                    )
                await asyncio.sleep(delay_s)

    async def _run_connection(self, failed_at: float | None) -> None:
        """Run one connection in its own task, so that its failure cannot mask our cancellation."""
        connection = asyncio.create_task(self._connect_once(failed_at), name="bus.connection")
        try:
            await asyncio.wait({connection})
        except asyncio.CancelledError:
            connection.cancel()
            # return_exceptions: the task may just have failed, and CancelledError has to win.
            await asyncio.gather(connection, return_exceptions=True)
            raise
        await connection

    async def _connect_once(self, failed_at: float | None) -> None:
        """Connect, serve until the connection ends, and raise the reason."""
        self._number += 1
        self._probe_returned = asyncio.Event()
        try:
            async with self._open() as connection:
                try:
                    raise_if_cancelled()  # connecting uses asyncio.wait_for too
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(connection.wait_closed(), name="bus.receive")
                        tasks.create_task(self._serve(connection, failed_at), name="bus.serve")
                finally:
                    self._connection = None  # first: no publish may begin from here on
                    connection.fail_publishes()
                    await self._publish_offline(connection)
        except BaseExceptionGroup as group:
            # Callers handle the plain error. If both tasks failed, it was for the same reason.
            raise _first(group) from None

    def _open(self) -> BrokerConnection:
        will = None
        if self._presence is not None:
            status = self._presence.status(self.counters, offline="the connection broke")
            will = Will(self._presence.topic, encode(STATUS, status))
        return BrokerConnection(self._broker, self._identity, will, self._receive)

    async def _serve(self, connection: BrokerConnection, failed_at: float | None) -> None:
        """Subscribe, probe the connection, let publishers in, then publish the Status at intervals."""
        for topic_filter in (
            *(subscription.filter for subscription in self._subscriptions),
            *self._raw_queues,
        ):
            await connection.subscribe(topic_filter)
        if self._presence is not None:
            # QoS 0: at QoS 1 the probe would queue behind messages that wait for our acknowledgement.
            await connection.subscribe(self._presence.topic, qos=0)
            await self._probe(connection, self._presence.topic)
        # Only now: subscriptions are complete, and a message that is published is delivered.
        async with self._ready:
            self._connection = connection
            self._connected_at = time.monotonic()
            self._ready.notify_all()
        if self._presence is not None and self._presence.unpublished:  # changed since the probe
            await self._publish_status(connection)
        outage_s = None if failed_at is None else round(time.monotonic() - failed_at, 1)
        log.info("bus.connected", broker=self._address, outage_s=outage_s)
        self.counters.add("bus.connected")
        while self._presence is not None:
            await asyncio.sleep(self._presence.every_s)
            await self._publish_status(connection)

    async def _probe(self, connection: BrokerConnection, status_topic: str) -> None:
        """Publish our Status and wait until the broker sends it to us.

        A missing permission is not reported otherwise: the broker acknowledges a publish that it drops.
        """
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._publish_status(connection)
                await self._probe_returned.wait()
        except TimeoutError:
            raise BrokerConnectionError(
                self._address,
                reason=f"our own status on {status_topic} was not received within {_PROBE_S:g} s "
                "(may this client read and write it?)",
            ) from None

    def _receive(self, incoming: Incoming) -> None:
        """Put a message into the queues of its subscribers; must not block."""
        if self._is_probe(incoming):
            self._probe_returned.set()
        expected = self._put_raw(incoming)
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(incoming.topic)) is not None:
                self._deliver(subscription, names, incoming)
                break  # one delivery has one ack, so one subscription gets it
        else:
            self._discard(incoming, expected=expected)

    def _deliver(
        self, subscription: Subscription[Message], names: dict[str, str], incoming: Incoming
    ) -> None:
        delivery = Delivery(
            subscription.topic,
            names,
            incoming.payload,
            incoming.retained,
            time.monotonic(),
            incoming.ack or _no_ack,
        )
        try:
            subscription.queue.put_nowait(delivery)
        except asyncio.QueueFull:
            self.counters.add("bus.overflowed")
            log.warning("bus.overflowed", topic=incoming.topic)
            if incoming.ack is not None:
                # Without a PUBACK this message would occupy a place in the broker's in-flight window until
                # the connection ends, and a full window stops all deliveries. Reconnecting redelivers it.
                raise BrokerConnectionError(
                    self._address,
                    reason=f"more than {subscription.queue.maxsize} unacknowledged messages on "
                    f"{subscription.filter} (is max_inflight_messages too high?)",
                ) from None

    def _put_raw(self, incoming: Incoming) -> bool:
        """Put a message into the raw queues whose filter matches; return whether there was one."""
        matched = False
        for topic_filter, queue in self._raw_queues.items():
            if not matches(topic_filter, incoming.topic):
                continue
            matched = True
            try:
                queue.put_nowait(RawMessage(incoming.topic, incoming.payload, incoming.retained))
            except asyncio.QueueFull:
                self.counters.add("bus.overflowed")
        return matched

    def _discard(self, incoming: Incoming, *, expected: bool) -> None:
        """Acknowledge a message without a subscription; count it unless it is expected or a Status.

        It is our own Status, or a topic with a name that is not a DNS label.
        """
        if incoming.ack is not None:
            incoming.ack()
        if not expected and STATUS.match(incoming.topic) is None:
            self.counters.add("bus.unmatched")
            log.warning("bus.unmatched", topic=incoming.topic[:_LOGGED_TOPIC_CHARS])

    def _is_probe(self, incoming: Incoming) -> bool:
        if self._probe_returned.is_set() or self._presence is None:
            return False
        # The retained Status of an earlier run arrives on the same topic, before ours.
        return incoming.topic == self._presence.topic and self._presence.is_own(incoming.payload)

    async def _publish_status_if_connected(self) -> None:
        if (connection := self._connection) is not None:
            with contextlib.suppress(BrokerConnectionError):  # published again on reconnecting
                await self._publish_status(connection)

    async def _publish_status(self, connection: BrokerConnection, *, offline: str | None = None) -> None:
        if self._presence is None:
            return
        status = self._presence.status(self.counters, offline=offline)
        await connection.publish(self._presence.topic, encode(STATUS, status), retain=True)

    async def _publish_offline(self, connection: BrokerConnection) -> None:
        """Publish `offline` on a connection that still works.

        The broker does not send the will when a client disconnects properly, which aiomqtt does even when an
        exception ends the connection.
        """
        with contextlib.suppress(BrokerConnectionError, TimeoutError):
            async with asyncio.timeout(_OFFLINE_PUBLISH_S):
                connection.allow_last_publish()
                await self._publish_status(connection, offline="it was stopped")


def _no_ack() -> None:
    """Do nothing: QoS 0 and injected messages have no PUBACK."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def transient_client_id(purpose: str) -> str:
    """Return a random client id for a short-lived client, such as a command."""
    return f"gleaner-{purpose}-{secrets.token_hex(4)}"
