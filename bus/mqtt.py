"""The connection to the broker: one class that heals itself. The only importer of aiomqtt.

What is known of aiomqtt 2.5.1 on paho 2.2 and respected here: paho acknowledges before the application
sees a message unless manual acknowledgement is set before connecting; `publish` does not notice a lost
connection before its time-out; a connection closed before its CONNACK, as TLS does on a bad certificate,
is only logged and waited out, and one on which none came stays open; a refused SUBSCRIBE is silent; the will
does not fire when an exception leaves `async with`; more than about 20 concurrent publishes only queue up. A
Client serves one connection.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import aiomqtt
import structlog
from paho.mqtt.client import MQTT_LOG_ERR

from bus import tls
from bus.config import Broker
from bus.delivery import Delivery, Subscription, Tapped
from bus.metrics import Counters
from bus.presence import Presence
from bus.retry import Reconnects
from schemas.codec import encode
from schemas.errors import PermanentError, TransientError
from schemas.messages import Message
from schemas.topics import STATUS, Topic

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

_CONCURRENT_PUBLISHES = 20
_CONNECT_S = 10.0
_PUBLISH_S = 10.0
_PROBE_S = 10.0
_FAREWELL_S = 2.0
_LONGEST_PAUSE_S = 10.0
_SHORT_LIVES = 3
_REFUSED = 0x80
_FOREIGN = (aiomqtt.MqttError, OSError, TimeoutError)


class LinkError(TransientError):
    """The broker is out of reach, refuses, or went away."""


class _Inbox(asyncio.Queue[Any]):
    """Stands where aiomqtt queues messages, and passes each on as it comes from the socket.

    So nothing is read that nobody has time for: it stays with the broker, and no queue grows between. The
    broker's own window is no bound for that: mosquitto before 2.0.13 forgets it for a client that publishes.
    What it holds is the error of passing one on, which paho would only log: it ends the connection.
    """

    def __init__(self, take: Callable[[aiomqtt.Message], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._take = take

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if not self.empty():
            return  # the connection is about to end, and the next one brings this again
        try:
            self._take(item)
        except Exception as error:  # noqa: BLE001  # `_ended` raises it
            super().put_nowait(error)


@dataclass(slots=True)
class _Link:
    """One connection: it lives until the broker or the network ends it."""

    number: int
    client: aiomqtt.Client = field(init=False)
    echoed: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)


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
        self.trouble = "no answer"
        """Why there is no connection, while there is none."""
        self._broker = broker
        self._client_id = client_id
        self._password = password
        self._presence = presence
        self._durable = durable
        self._subscriptions: list[Subscription[Message]] = []
        self._taps: dict[str, asyncio.Queue[Tapped]] = {}
        self._publishes = asyncio.Semaphore(_CONCURRENT_PUBLISHES)
        self._link: _Link | None = None
        self._number = 0
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

    def tap(self, chosen: str, *, queue: int = 1024) -> asyncio.Queue[Tapped]:
        """Listen to any filter without decoding, for tools that look on; call before `run`.

        When its queue is full, messages are dropped and counted as `bus.overflowed`.
        """
        return self._taps.setdefault(chosen, asyncio.Queue(queue))

    def bring(self, topic: str, payload: bytes) -> None:
        """Deliver a message from elsewhere first of all, as a retained one; call before `run`."""
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(topic)) is not None:
                delivery = Delivery(subscription.topic, names, payload, True, time.monotonic(), _nothing)  # noqa: FBT003  # as Delivery has them
                subscription.queue.put_nowait(delivery)

    async def connected(self, after: int = 0) -> int:
        """Wait for a working connection with a number greater than `after`, and return its number.

        Working means proven: our own announcement came back from the broker.
        """
        async with self._ready:
            await self._ready.wait_for(lambda: self._link is not None and self._link.number > after)
            return self._number

    def unready(self) -> str | None:
        """Return why this component is not ready for work, or None if it is."""
        if self._link is None:
            return f"no connection to {self._address}"
        return None if self._presence is None else self._presence.trouble()

    async def publish(self, topic: Topic[M], message: M, **names: str) -> None:
        """Publish at QoS 1 and wait until the broker has it.

        Cancelling may leave it published or not.

        Raises:
            TopicError: A name is no DNS label.
            LinkError: No connection, or none any more; it may have arrived all the same.
        """
        await self.publish_bytes(topic.name(**names), encode(topic, message), retain=topic.retain)

    async def publish_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish encoded bytes, otherwise like `publish`."""
        async with self._publishes:
            if (link := self._link) is None:
                raise LinkError(self._address, expected="a connection", got="none")
            await self._publish_on(link, topic, payload, retain=retain)

    async def report(self, **facts: object) -> None:
        """Change what the status topic says of this component, now if connected, else when it is.

        Args:
            facts: Fields of Status, such as `model`.
        """
        if self._presence is not None:
            self._presence.change(**facts)
            await self._announce()

    async def degraded(self, part: str, reason: str) -> None:
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

    async def recovered(self, part: str) -> None:
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
        reconnects = Reconnects(_LONGEST_PAUSE_S)
        failed_at: float | None = None
        while True:
            self._works_since = None
            try:
                await self._until_it_ends(failed_at)
            except LinkError as error:
                now = time.monotonic()
                delay_s = reconnects.lost(None if self._works_since is None else now - self._works_since)
                self.counters.add("bus.disconnected")
                self.trouble = str(error.got)
                first = reconnects.failures == 1
                failed_at = now if first else failed_at
                level = log.warning if first else log.debug
                level("bus.disconnected", broker=self._address, error=str(error))
                if reconnects.short_lives == _SHORT_LIVES:
                    self.counters.add("bus.unsteady")
                    hint = "does another client use the same id?"
                    log.warning("bus.unsteady", broker=self._address, client_id=self._client_id, hint=hint)
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
        with self._mapped(), contextlib.ExitStack() as closing:
            self._number += 1
            link = _Link(self._number)
            link.client = self._client(partial(self._take, link))
            closing.callback(link.client._client._sock_close)  # noqa: SLF001  # a late answer on it would take over
            async with link.client:
                _heed_cancellation()
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(_ended(link.client), name="bus.receive")
                        tasks.create_task(self._serve(link, failed_at), name="bus.serve")
                finally:
                    self._link = None
                    link.lost.set()
                    await self._say_farewell(link)

    async def _serve(self, link: _Link, failed_at: float | None) -> None:
        """Subscribe, prove that messages come through, open for publishers, then report now and then."""
        for chosen in (*(subscription.filter for subscription in self._subscriptions), *self._taps):
            await self._subscribe_on(link, chosen)
        if self._presence is not None:
            own = STATUS.name(node=self._presence.node, name=self._presence.name)
            # QoS 0: at QoS 1 it would queue behind the messages that wait for our acknowledgement.
            await self._subscribe_on(link, own, qos=0)
            await self._probe(link, own)
        async with self._ready:
            self._link = link
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

    async def _probe(self, link: _Link, own: str) -> None:
        """Publish our announcement and wait until it comes back."""
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._publish_status(link)
                await link.echoed.wait()
        except TimeoutError:
            raise LinkError(
                self._address,
                expected=f"our own status back within {_PROBE_S} s",
                got=f"nothing on {own} (may this client read and write it?)",
            ) from None

    def _take(self, link: _Link, incoming: aiomqtt.Message) -> None:
        """Pass a message to whoever wants it."""
        topic, payload = incoming.topic.value, incoming.payload
        if self._is_echo(link, topic, payload):
            link.echoed.set()
        tapped = self._pass_to_taps(incoming)
        for subscription in self._subscriptions:
            if (names := subscription.topic.match(topic)) is not None:
                self._deliver(subscription, names, incoming, link)
                break
        else:
            self._discard(incoming, link, wanted=tapped)

    def _deliver(
        self,
        subscription: Subscription[Message],
        names: dict[str, str],
        incoming: aiomqtt.Message,
        link: _Link,
    ) -> None:
        delivery = Delivery(
            subscription.topic,
            names,
            incoming.payload,
            incoming.retain,
            time.monotonic(),
            partial(_acknowledge, link.client, incoming.mid, incoming.qos),
        )
        try:
            subscription.queue.put_nowait(delivery)
        except asyncio.QueueFull:
            self.counters.add("bus.overflowed")
            log.warning("bus.overflowed", topic=incoming.topic.value)
            if incoming.qos:
                # Unacknowledged it would hold its place with the broker for as long as this connection lives,
                # and enough of those are silence. The next connection brings it again.
                raise LinkError(
                    self._address,
                    expected=f"fewer messages in flight than the {subscription.queue.maxsize} that may wait "
                    f"on {subscription.filter} (is max_inflight_messages too high?)",
                    got="more",
                ) from None

    def _pass_to_taps(self, incoming: aiomqtt.Message) -> bool:
        """Hand a message to those who look on; tells whether there was one."""
        tapped = False
        for chosen, queue in self._taps.items():
            if not incoming.topic.matches(chosen):
                continue
            tapped = True
            try:
                queue.put_nowait(Tapped(incoming.topic.value, incoming.payload, incoming.retain))
            except asyncio.QueueFull:
                self.counters.add("bus.overflowed")
        return tapped

    def _discard(self, incoming: aiomqtt.Message, link: _Link, *, wanted: bool) -> None:
        """Acknowledge what no subscription wants: our own status, or a name that is no DNS label."""
        _acknowledge(link.client, incoming.mid, incoming.qos)
        if not wanted and STATUS.match(incoming.topic.value) is None:
            self.counters.add("bus.misaddressed")
            log.warning("bus.misaddressed", topic=incoming.topic.value[:200])

    def _is_echo(self, link: _Link, topic: str, payload: bytes) -> bool:
        if link.echoed.is_set() or self._presence is None:
            return False
        if topic != STATUS.name(node=self._presence.node, name=self._presence.name):
            return False
        return self._presence.is_own(payload)

    async def _subscribe_on(self, link: _Link, chosen: str, *, qos: int = 1) -> None:
        granted = await link.client.subscribe(chosen, qos=qos)
        _heed_cancellation()
        for code in granted:
            value = code if isinstance(code, int) else code.value
            if value >= _REFUSED:
                raise PermanentError(f"subscription {chosen}", expected="to be granted", got=hex(value))

    async def _publish_on(self, link: _Link, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish and wait for the broker, but no longer than the connection lives."""
        with self._mapped():
            sending = asyncio.ensure_future(
                link.client.publish(topic, payload, qos=1, retain=retain, timeout=_PUBLISH_S)
            )
            losing = asyncio.ensure_future(link.lost.wait())
            try:
                await asyncio.wait((sending, losing), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise LinkError(self._address, expected="an acknowledgement", got="a lost connection")
                await sending
            finally:
                losing.cancel()
                if not sending.done():
                    sending.cancel()

    async def _announce(self) -> None:
        if (link := self._link) is not None:
            with contextlib.suppress(LinkError):  # the next announcement says it
                await self._publish_status(link)

    async def _publish_status(self, link: _Link, *, offline: str | None = None) -> None:
        if self._presence is None:
            return
        status = self._presence.status(self.counters, offline=offline)
        await self._publish_on(link, self._presence.topic, encode(STATUS, status), retain=True)

    async def _say_farewell(self, link: _Link) -> None:
        """Say `offline` while leaving a connection that still works; the will does so for one that broke."""
        with contextlib.suppress(LinkError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                link.lost = asyncio.Event()
                await self._publish_status(link, offline="it was stopped")

    def _client(self, take: Callable[[aiomqtt.Message], None]) -> aiomqtt.Client:
        broker = self._broker
        will = None
        if self._presence is not None:
            last_words = encode(STATUS, self._presence.status(self.counters, offline="the connection broke"))
            will = aiomqtt.Will(self._presence.topic, last_words, qos=1, retain=True)
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=self._password,
            identifier=self._client_id,
            clean_session=not self._durable,
            keepalive=broker.keepalive_s,
            will=will,
            tls_context=None if broker.tls is None else tls.context(broker.tls),
            timeout=_CONNECT_S,
            queue_type=cast(type[asyncio.Queue[aiomqtt.Message]], partial(_Inbox, take)),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.pending_calls_threshold = _CONCURRENT_PUBLISHES * 2
        client._client.manual_ack_set(True)  # noqa: SLF001, FBT003  # paho's, see the top of this file
        _fail_when_refused(client)
        return client

    @property
    def _address(self) -> str:
        return f"broker {self._broker.host}:{self._broker.port}"

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the errors of aiomqtt, the socket and our own deadlines into LinkError."""
        try:
            yield
        except BaseExceptionGroup as group:
            raise self._meaning(_first(group)) from None
        except _FOREIGN as error:
            raise self._meaning(error) from None

    def _meaning(self, error: BaseException) -> BaseException:
        """Return the bus's own error for a foreign one; any other stays what it is."""
        if not isinstance(error, _FOREIGN):
            return error
        said = tls.meaning(error) or type(error).__name__
        return LinkError(self._address, expected="a connection", got=said)


def _nothing() -> None:
    """Acknowledge what no broker waits for."""


async def _ended(client: aiomqtt.Client) -> None:
    """Wait until the connection ends, or a message could not be passed on, and raise why."""
    async for error in cast(AsyncIterator[Exception], client.messages):  # see _Inbox
        raise error


def _acknowledge(client: aiomqtt.Client, mid: int, qos: int) -> None:
    if qos:
        client._client.ack(mid, qos)  # noqa: SLF001  # aiomqtt offers no way of its own


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _heed_cancellation() -> None:
    """Raise a cancellation that came together with a result: `asyncio.wait_for` inside aiomqtt loses it.

    Source: CPython issue 86296; fixed in Python 3.12.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _fail_when_refused(client: aiomqtt.Client) -> None:
    """Make connecting fail at once, with the reason, when the connection is closed before the CONNACK."""
    said: list[str] = []
    paho, connected, on_disconnect = client._client, client._connected, client._on_disconnect  # noqa: SLF001  # see the top of this file

    def keep(_client: object, _userdata: object, level: int, text: str) -> None:
        if level == MQTT_LOG_ERR:
            said.append(text)

    def fail(*facts: Any) -> None:
        if not connected.done():
            connected.set_exception(aiomqtt.MqttError(tls.refusal(said[-1] if said else "")))
        on_disconnect(*facts)

    paho.on_log = keep
    paho.on_disconnect = fail


def passing_id(purpose: str) -> str:
    """Return a client id for a passing client, such as a command typed by a person."""
    return f"gleaner-{purpose}-{secrets.token_hex(4)}"
