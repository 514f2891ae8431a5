"""Self-healing MQTT client: one `bus.mqtt.connection.Link` after the other."""

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
    Identity,
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
_FAREWELL_S = 2.0
_LONGEST_PAUSE_S = 10.0
_SHORT_LIVES = 3


class Bus:
    """A component's connection to the broker.

    `run` connects, subscribes, announces the component on its status topic and reconnects with jittered
    back-off for as long as it runs; subscriptions and callers of `publish` live through all of that.

    Args:
        broker: Where and how to connect.
        client_id: Two connections of one id throw each other out: unique for each component.
        password: For the broker's user name.
        presence: Who this is on the status topic; None for a passing client.
        durable: Whether the broker keeps subscriptions and unacknowledged messages while we are away.
        counters: Where connections and messages are counted.
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
        """Why there is no connection, while there is none."""
        self._broker = broker
        self._address = address(broker)
        self._identity = Identity(client_id, password, durable)
        self._presence = presence
        self._subscriptions: list[Subscription[Message]] = []
        self._raw_queues: dict[str, asyncio.Queue[RawMessage]] = {}
        self._publishes = asyncio.Semaphore(CONCURRENT_PUBLISHES)
        self._connection: BrokerConnection | None = None
        """The connection while it works."""
        self._number = 0
        self._echoed = asyncio.Event()
        self._works_since: float | None = None
        self._ready = asyncio.Condition()

    def subscribe(
        self, topic: Topic[M], *, queue: int = 1024, group: str | None = None, **names: str
    ) -> Subscription[M]:
        """Subscribe from the next connection on; call before `run`.

        Args:
            topic: The kind of topic.
            queue: Most deliveries that may wait here: more than the broker's `max_inflight_messages`.
            group: Share the messages with all subscribers of this group (`$share`).
            names: Values for some of the topic's names; the others match anything.

        Raises:
            TopicError: A value is no DNS label.
        """
        chosen = topic.select(**names)
        subscription = Subscription(
            topic, f"$share/{group}/{chosen}" if group else chosen, asyncio.Queue(queue)
        )
        self._subscriptions.append(subscription)  # type: ignore[arg-type]  # read back with its own topic alone
        return subscription

    def subscribe_raw(self, chosen: str, *, queue: int = 1024) -> asyncio.Queue[RawMessage]:
        """Listen to any filter without decoding, for tools that look on; call before `run`.

        When its queue is full, messages are dropped and counted as `bus.overflowed`.
        """
        return self._raw_queues.setdefault(chosen, asyncio.Queue(queue))

    def inject(self, topic: str, payload: bytes) -> None:
        """Deliver a message from elsewhere first of all, as a retained one; call before `run`."""
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(topic)) is not None:
                delivery = Delivery(subscription.topic, names, payload, True, time.monotonic(), _nothing)  # noqa: FBT003  # as Delivery has them
                subscription.queue.put_nowait(delivery)

    async def connected(self, after: int = 0) -> int:
        """Wait for a working connection with a number greater than `after`, and return its number.

        Working means proven: our own announcement came back from the broker.
        """
        if self._connection is None or self._number <= after:
            async with self._ready:
                await self._ready.wait_for(lambda: self._connection is not None and self._number > after)
        return self._number

    def unready_reason(self) -> str | None:
        """Return why this component is not ready for work, or None if it is."""
        if self._connection is None:
            return f"no connection to {self._address}"
        return None if self._presence is None else self._presence.trouble()

    async def publish(self, topic: Topic[M], message: M, **names: str) -> None:
        """Publish at QoS 1 and wait until the broker has it.

        Cancelling may leave it published or not.

        Raises:
            TopicError: A name is no DNS label.
            BrokerConnectionError: No connection, or none any more; it may have arrived all the same.
        """
        await self.publish_bytes(topic.name(**names), encode(topic, message), retain=topic.retain)

    async def publish_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish encoded bytes, otherwise like `publish`."""
        async with self._publishes:
            if (link := self._connection) is None:
                raise BrokerConnectionError(self._address, expected="a connection", got="none")
            await link.publish(topic, payload, retain=retain)

    async def report(self, **facts: object) -> None:
        """Change what the status topic says of this component, now if connected, else when it is.

        Args:
            facts: Fields of Status, such as `model`.
        """
        if self._presence is not None:
            self._presence.change(**facts)
            await self._announce()

    def report_later(self, **facts: object) -> None:
        """Change what the next Status says, whenever that is due.

        Args:
            facts: Fields of Status, such as `serving`.
        """
        if self._presence is not None:
            self._presence.change(**facts)

    async def report_degraded(self, part: str, reason: str) -> None:
        """Say on the status topic, and in the log, that a part of this component does not work.

        Args:
            part: `camera`, `disk`, `model` …; several may be in trouble at once.
            reason: In words. What was said before is not announced again.
        """
        if self._presence is None:
            return
        before = self._presence.trouble()
        level = log.warning if self._presence.degrade(part, reason) else log.debug
        level("bus.degraded", part=part, reason=reason)
        if self._presence.trouble() != before:
            await self._announce()

    async def report_recovered(self, part: str) -> None:
        """Say that this part works again; nothing if it did all the time."""
        if self._presence is None or (outage_s := self._presence.recover(part)) is None:
            return
        log.info("bus.recovered", part=part, outage_s=round(outage_s, 1))
        await self._announce()

    async def run(self) -> None:
        """Stay connected until cancelled. On the way out says `offline`; safe to cancel.

        Raises:
            PermanentError: The broker refuses a subscription.
        """
        reconnects = ReconnectBackoff(_LONGEST_PAUSE_S)
        failed_at: float | None = None
        while True:
            self._works_since = None
            try:
                await self._until_it_ends(failed_at)
            except BrokerConnectionError as error:
                now = time.monotonic()
                delay_s = reconnects.lost(None if self._works_since is None else now - self._works_since)
                self.counters.add("bus.disconnected")
                self.last_error = str(error.got)
                first = reconnects.failures == 1
                failed_at = now if first else failed_at
                level = log.warning if first else log.debug
                level("bus.disconnected", broker=self._address, error=str(error))
                if reconnects.short_connections == _SHORT_LIVES:
                    self.counters.add("bus.unsteady")
                    hint = "does another client use the same id?"
                    log.warning(
                        "bus.unsteady", broker=self._address, client_id=self._identity.client_id, hint=hint
                    )
                await asyncio.sleep(delay_s)

    async def _until_it_ends(self, failed_at: float | None) -> None:
        """Own the task of one connection, whose last error must not stand in for our cancellation."""
        connection = asyncio.create_task(self._connect_once(failed_at), name="bus.connection")
        try:
            await asyncio.wait({connection})
        except asyncio.CancelledError:
            connection.cancel()
            await asyncio.gather(connection, return_exceptions=True)
            raise
        await connection

    async def _connect_once(self, failed_at: float | None) -> None:
        """Connect, serve until the connection ends, and raise why it did."""
        self._number += 1
        self._echoed = asyncio.Event()
        try:
            async with self._open() as link:
                try:
                    raise_if_cancelled()
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(link.ended(), name="bus.receive")
                        tasks.create_task(self._serve(link, failed_at), name="bus.serve")
                finally:
                    self._connection = None
                    link.lose()
                    await self._say_farewell(link)
        except BaseExceptionGroup as group:
            raise _first(group) from None

    def _open(self) -> BrokerConnection:
        will = None
        if self._presence is not None:
            last_words = self._presence.status(self.counters, offline="the connection broke")
            will = Will(self._presence.topic, encode(STATUS, last_words))
        return BrokerConnection(self._broker, self._identity, will, self._take)

    async def _serve(self, link: BrokerConnection, failed_at: float | None) -> None:
        """Subscribe, prove that messages come through, open for publishers, then report now and then."""
        for chosen in (*(subscription.filter for subscription in self._subscriptions), *self._raw_queues):
            await link.subscribe(chosen)
        if self._presence is not None:
            own = self._presence.topic
            # QoS 0: at QoS 1 it would queue behind the messages that wait for our acknowledgement.
            await link.subscribe(own, qos=0)
            await self._probe(link, own)
        async with self._ready:
            self._connection = link
            self._works_since = time.monotonic()
            self._ready.notify_all()
        if self._presence is not None and self._presence.unsaid:  # since the probe
            await self._publish_status(link)
        outage_s = None if failed_at is None else round(time.monotonic() - failed_at, 1)
        log.info("bus.connected", broker=self._address, outage_s=outage_s)
        self.counters.add("bus.connected")
        while self._presence is not None:
            await asyncio.sleep(self._presence.every_s)
            await self._publish_status(link)

    async def _probe(self, link: BrokerConnection, own: str) -> None:
        """Publish our announcement and wait until it comes back."""
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._publish_status(link)
                await self._echoed.wait()
        except TimeoutError:
            raise BrokerConnectionError(
                self._address,
                expected=f"our own status back within {_PROBE_S} s",
                got=f"nothing on {own} (may this client read and write it?)",
            ) from None

    def _take(self, incoming: Incoming) -> None:
        """Pass a message to whoever wants it."""
        if self._is_echo(incoming):
            self._echoed.set()
        tapped = self._pass_to_taps(incoming)
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(incoming.topic)) is not None:
                self._deliver(subscription, names, incoming)
                break
        else:
            self._discard(incoming, wanted=tapped)

    def _deliver(
        self, subscription: Subscription[Message], names: dict[str, str], incoming: Incoming
    ) -> None:
        delivery = Delivery(
            subscription.topic,
            names,
            incoming.payload,
            incoming.retained,
            time.monotonic(),
            incoming.ack or _nothing,
        )
        try:
            subscription.queue.put_nowait(delivery)
        except asyncio.QueueFull:
            self.counters.add("bus.overflowed")
            log.warning("bus.overflowed", topic=incoming.topic)
            if incoming.ack is not None:
                # Unacknowledged it would hold its place with the broker for as long as this connection lives,
                # and enough of those are silence. The next connection brings it again.
                raise BrokerConnectionError(
                    self._address,
                    expected=f"fewer messages in flight than the {subscription.queue.maxsize} that may wait "
                    f"on {subscription.filter} (is max_inflight_messages too high?)",
                    got="more",
                ) from None

    def _pass_to_taps(self, incoming: Incoming) -> bool:
        """Hand a message to those who look on; tells whether there was one."""
        tapped = False
        for chosen, queue in self._raw_queues.items():
            if not matches(chosen, incoming.topic):
                continue
            tapped = True
            try:
                queue.put_nowait(RawMessage(incoming.topic, incoming.payload, incoming.retained))
            except asyncio.QueueFull:
                self.counters.add("bus.overflowed")
        return tapped

    def _discard(self, incoming: Incoming, *, wanted: bool) -> None:
        """Acknowledge what no subscription wants: our own status, or a name that is no DNS label."""
        if incoming.ack is not None:
            incoming.ack()
        if not wanted and STATUS.match(incoming.topic) is None:
            self.counters.add("bus.misaddressed")
            log.warning("bus.misaddressed", topic=incoming.topic[:200])

    def _is_echo(self, incoming: Incoming) -> bool:
        if self._echoed.is_set() or self._presence is None:
            return False
        return incoming.topic == self._presence.topic and self._presence.is_own(incoming.payload)

    async def _announce(self) -> None:
        if (link := self._connection) is not None:
            with contextlib.suppress(BrokerConnectionError):  # the next announcement says it
                await self._publish_status(link)

    async def _publish_status(self, link: BrokerConnection, *, offline: str | None = None) -> None:
        if self._presence is None:
            return
        status = self._presence.status(self.counters, offline=offline)
        await link.publish(self._presence.topic, encode(STATUS, status), retain=True)

    async def _say_farewell(self, link: BrokerConnection) -> None:
        """Say `offline` while leaving a connection that still works; the will does so for one that broke."""
        with contextlib.suppress(BrokerConnectionError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                link.allow_last_publish()
                await self._publish_status(link, offline="it was stopped")


def _nothing() -> None:
    """Acknowledge what no broker waits for."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def transient_client_id(purpose: str) -> str:
    """Return a client id for a passing client, such as a command typed by a person."""
    return f"gleaner-{purpose}-{secrets.token_hex(4)}"
