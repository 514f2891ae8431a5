"""MQTT client that reconnects: it runs one `BrokerConnection` after the other."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from bus.config import Broker, ConfigError
from bus.metrics import Counters
from bus.mqtt.backpressure import Backpressure
from bus.mqtt.connection.connection import (
    CONCURRENT_PUBLISHES,
    BrokerConnection,
    ClientIdentity,
    Incoming,
    Will,
    address,
    raise_if_cancelled,
)
from bus.mqtt.errors import BrokerConnectionError
from bus.mqtt.outage import Outage
from bus.mqtt.presence import Presence, Reporter
from bus.mqtt.status_probe import StatusProbe
from bus.mqtt.subscription import (
    DeliveryQueue,
    RawMessage,
    RawSubscriptions,
    Subscription,
    Subscriptions,
)
from schemas.codec import encode
from schemas.errors import PermanentError, first_cause
from schemas.messages import Message, Status
from schemas.topics import STATUS, Topic

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

_CHECK_S = 1.0
_STALLED_PART = "subscription"


class _RedeliveryNeededError(Exception):
    """Messages were left to the broker, which delivers them again on the next connection."""


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
        self.on_unmatched: Callable[[str, bytes], None] = _ignore
        """Called with topic and payload of a message without a subscription, as a name in its topic is not a
        DNS label; must not block."""
        self.stray_filters: tuple[str, ...] = ()
        """Filters of further messages for `on_unmatched`; a broker may refuse them."""
        self.last_error = "no answer"
        """Why the last connection attempt failed or the last connection ended."""
        self.last_hint: str | None = None
        """What to do about it."""
        self._broker = broker
        self._address = address(broker)
        self._identity = ClientIdentity(client_id, password, durable)
        self._presence = presence
        self._reporter = Reporter(presence, self.counters)
        self._backpressure = Backpressure(self.counters)
        self._raw = RawSubscriptions(self.counters)
        self._subscriptions = Subscriptions(
            self.counters,
            delivered=self._backpressure.update,
            overflowed=self._backpressure.overflow,
            unmatched=self._unmatched,
        )
        self._publish_slots = asyncio.Semaphore(CONCURRENT_PUBLISHES)
        self._connection: BrokerConnection | None = None
        """The present connection; set only while it is proven to work."""
        self._number = 0  # of the present or last connection attempt
        self._probe = None if presence is None else StatusProbe(self._address, presence, self._reporter)
        self._connected_at: float | None = None
        self._outage = Outage(self._address, self._identity.client_id, self.counters)
        self._ready = asyncio.Condition()

    def subscribe(
        self,
        topic: Topic[M],
        *,
        queue: int = 1024,
        group: str | None = None,
        optional: bool = False,
        **names: str,
    ) -> Subscription[M]:
        """Subscribe with the next connection; call before `run`.

        Args:
            topic: The kind of topic.
            queue: Most deliveries that may wait in this process; while it is full, nothing more is read from
                the broker.
            group: Share the messages among all subscribers of this group (MQTT `$share`).
            optional: Whether a broker may refuse it, as one whose access list is older than the topic.
            names: Values for some of the topic's names; the others match any value.

        Raises:
            TopicError: A value is not a DNS label.
        """
        topic_filter = topic.select(**names)
        subscription = Subscription(
            topic, f"$share/{group}/{topic_filter}" if group else topic_filter, DeliveryQueue(queue)
        )
        self._backpressure.watch(subscription.queue)
        self._subscriptions.add(subscription, optional=optional)
        return subscription

    def subscribe_raw(
        self, topic_filter: str, *, queue: int = 1024, optional: bool = False
    ) -> asyncio.Queue[RawMessage]:
        """Subscribe to any MQTT filter without decoding, for diagnostics; call before `run`.

        Args:
            topic_filter: Any MQTT filter.
            queue: Most messages that wait. When it is full, messages are dropped and counted as
                `bus.overflowed`; of an optional one the oldest is replaced.
            optional: Whether a broker may refuse it.
        """
        return self._raw.add(topic_filter, queue, optional=optional)

    def inject(self, topic: str, payload: bytes) -> None:
        """Deliver a message to the subscriptions as if the broker had retained it; call before `run`."""
        self._subscriptions.inject(topic, payload)

    async def connected(self, after: int = 0) -> int:
        """Wait for a working connection with a number greater than `after` and return its number.

        A connection counts as working once the Status that it published was received from the broker. Safe to
        cancel.
        """
        if self._connection is None or self._number <= after:
            async with self._ready:
                await self._ready.wait_for(lambda: self._connection is not None and self._number > after)
        return self._number

    @property
    def connection_number(self) -> int | None:
        """The number of the working connection, as `connected` returns it; None without one."""
        return None if self._connection is None else self._number

    def status(self) -> Status:
        """Return the Status as of now; only for a component with a presence."""
        assert self._presence is not None
        return self._presence.status(self.counters)

    def unready_reason(self) -> str | None:
        """Return why this component cannot work at present, None if it can."""
        if self._connection is None:
            return f"no connection to {self._address}"
        if self._presence is None:
            return self._backpressure.stalled()
        return self._presence.degraded_reason()

    @property
    def last_unmatched(self) -> bool:
        """Whether the broker reported that the topic of the last confirmed message has no subscriber.

        Brokers may leave it out, and MQTT 3.1.1 has no field for it.
        """
        return self._connection is not None and self._connection.publisher.unmatched

    async def publish(self, topic: Topic[M], message: M, **names: str) -> None:
        """Publish a message at QoS 1 and wait for the broker's acknowledgement.

        If cancelled, the message may or may not have been published.

        Raises:
            TopicError: A name is not a DNS label.
            BrokerConnectionError: Not connected, or the broker refuses the message. Or the connection was
                lost, and the broker may still have received it.
            MessageTooLargeError: The message is larger than a limit of the broker.
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
        self._reporter.update(**fields)
        await self._reporter.publish_if_connected()

    def report_later(self, **fields: object) -> None:
        """Change fields of the Status without publishing: they are part of the next Status.

        Args:
            fields: Fields of Status, for example `serving`.
        """
        self._reporter.update(**fields)

    def finish(self) -> None:
        """Note that this component has finished: it leaves no Status, unlike one that is stopped early."""
        self._reporter.is_done = True

    async def report_degraded(self, part: str, reason: str) -> None:
        """Mark a part of this component as not working; log it and publish the Status if the reason is new.

        Args:
            part: For example `camera`, `disk` or `model`; several can be degraded at the same time.
            reason: Why, for people.
        """
        await self._reporter.degrade(part, reason)

    async def report_recovered(self, part: str) -> None:
        """Mark a part of this component as working again; does nothing if it was not degraded."""
        await self._reporter.recover(part)

    async def run(self) -> None:
        """Stay connected until cancelled; then publish `offline` if connected. Safe to cancel.

        Raises:
            PermanentError: The broker refuses a subscription.
            ConfigError: A file for TLS cannot be used at the first attempt; later it is tried again.
        """
        while True:
            self._connected_at = None
            try:
                await self._run_connection(self._outage.began_at)
            except _RedeliveryNeededError:
                log.info("bus.reconnecting", broker=self._address, reason="redelivery: messages did not fit")
            except BrokerConnectionError as error:
                self._identity = self._identity.after(error, worked=self._connected_at is not None)
                await self._wait_after(error)
            except ConfigError as error:
                if self._number == 1:
                    raise
                # They were right before: certificate and key are being replaced, one after the other.
                await self._wait_after(BrokerConnectionError(self._address, reason=str(error)))

    async def _wait_after(self, error: BrokerConnectionError) -> None:
        """Note why an attempt failed or a connection ended, and wait before the next attempt."""
        self.last_error, self.last_hint = error.reason, error.hint
        await asyncio.sleep(self._outage.failed(error, self._connected_at))

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
        if self._probe is not None:
            self._probe.reset()
        try:
            async with self._open() as connection:
                try:
                    raise_if_cancelled()  # connecting uses asyncio.wait_for too
                    self._backpressure.begin()
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(connection.wait_closed(), name="bus.receive")
                        tasks.create_task(connection.watch(), name="bus.watch")
                        tasks.create_task(self._watch_queues(), name="bus.queues")
                        tasks.create_task(self._serve(connection, failed_at), name="bus.serve")
                finally:
                    self._connection = None  # first: no publish may begin from here on
                    self._reporter.attach(None)
                    connection.fail_publishes()
                    await self._reporter.publish_offline(connection)
        except BaseExceptionGroup as group:
            # Callers handle the plain error. If both tasks failed, it was for the same reason.
            raise first_cause(group) from None

    def _open(self) -> BrokerConnection:
        will = None
        if self._presence is not None:
            status = self._presence.status(self.counters, offline="the connection broke")
            will = Will(self._presence.topic, encode(STATUS, status))
        return BrokerConnection(self._broker, self._identity, will, self._receive)

    async def _serve(self, connection: BrokerConnection, failed_at: float | None) -> None:
        """Subscribe, probe the connection, let publishers in, then publish the Status at intervals."""
        # A resumed session has its subscriptions, and the SUBACK arrives behind all messages that wait in it.
        # They must not be read before they can be taken: those that do not fit would all be sent again.
        resumed = connection.session_resumed and self._presence is None
        if resumed:
            await self._let_in(connection, failed_at)
        for topic_filter in (*self._subscriptions.filters, *self._raw.filters):
            await connection.subscribe(topic_filter)
        optional = (*self._subscriptions.optional_filters, *self._raw.optional_filters)
        for topic_filter in (*self.stray_filters, *optional):
            with contextlib.suppress(PermanentError):
                await connection.subscribe(topic_filter)
        if self._probe is not None:
            await self._probe.run(connection)
        # Only now: subscriptions are complete, and a message that is published is delivered.
        if not resumed:
            await self._let_in(connection, failed_at)
        await self._reporter.run(connection)

    async def _let_in(self, connection: BrokerConnection, failed_at: float | None) -> None:
        """Let publishers and consumers use a connection."""
        async with self._ready:
            self._connection = connection
            self._reporter.attach(connection)
            self._backpressure.attach(connection)
            self._connected_at = time.monotonic()
            self._ready.notify_all()
        if self._presence is not None and self._presence.unpublished:  # changed since the probe
            await self._reporter.publish(connection)
        outage_s = None if failed_at is None else round(time.monotonic() - failed_at, 1)
        log.info("bus.connected", broker=self._address, outage_s=outage_s)
        self.counters.add("bus.connected")

    async def _watch_queues(self) -> None:
        """Report messages that nobody takes; fetch again what did not fit."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self._outage.settle(self._connected_at)
            if (reason := self._backpressure.stalled()) is not None:
                await self._reporter.degrade(_STALLED_PART, reason)
            else:
                await self._reporter.recover(_STALLED_PART)
            if self._backpressure.needs_redelivery():
                raise _RedeliveryNeededError

    def _receive(self, incoming: Incoming) -> None:
        """Put a message into the queues of its subscribers; must not block."""
        if self._probe is not None:
            self._probe.receive(incoming)
        expected = self._raw.put(incoming)
        self._subscriptions.put(incoming, expected=expected)

    def _unmatched(self, topic: str, payload: bytes) -> None:
        self.on_unmatched(topic, payload)  # as it is now: it may be set later


def _ignore(_topic: str, _payload: bytes) -> None:
    """Do nothing with a message without a subscription."""


def transient_client_id(purpose: str) -> str:
    """Return a random client id for a short-lived client, such as a command."""
    return f"gleaner-{purpose}-{secrets.token_hex(4)}"
