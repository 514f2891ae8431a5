"""One connection to a broker, from its handshake to its end. The only importer of aiomqtt.

What is known of aiomqtt 2.5.1 on paho 2.2.0 and respected here: paho acknowledges before the application
sees a message unless manual acknowledgement is set before connecting; aiomqtt's `publish` does not notice a
lost connection before its time-out and needs a task to be waited for, so that ours asks paho itself; a
connection closed before its CONNACK, as TLS does on a bad certificate, is only logged and waited out, and one
on which none came stays open; a refused SUBSCRIBE is silent; the will does not fire when an exception leaves
`async with`; more than about 20 concurrent publishes only queue up. A Client serves one connection.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self, cast

import aiomqtt
from paho.mqtt.client import MQTT_LOG_ERR, error_string

from bus.config import Broker
from bus.mqtt import tls
from schemas.errors import PermanentError, TransientError

CONCURRENT_PUBLISHES = 20

_CONNECT_S = 10.0
_GIVE_UP_S = 2.0
_PUBLISH_S = 10.0
_REFUSED = 0x80
_FOREIGN = (aiomqtt.MqttError, OSError, TimeoutError)


class BrokerConnectionError(TransientError):
    """The broker is out of reach, refuses, or went away."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who connects, and whether the broker keeps subscriptions and messages while it is away."""

    client_id: str
    password: str | None = field(repr=False)
    durable: bool


class Will(NamedTuple):
    """What the broker says, retained, of a client whose connection breaks."""

    topic: str
    payload: bytes


class Incoming(NamedTuple):
    """A message as it came from the broker.

    Args:
        topic: Its full name.
        payload: Any bytes.
        retained: Whether the broker kept it for us.
        ack: Lets the broker forget it; None at QoS 0.
    """

    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None] | None


class BrokerConnection:
    """A connection, open for the length of an `async with`.

    Args:
        broker: Where and how to connect.
        identity: Who connects.
        will: Its last will.
        take: Gets each message as it comes from the socket. What it raises ends the connection.
    """

    def __init__(
        self, broker: Broker, identity: Identity, will: Will | None, take: Callable[[Incoming], None]
    ) -> None:
        self.address = address(broker)
        self._lost = False
        self._unanswered: dict[int, asyncio.Future[None]] = {}
        self._take = take
        self._opened = contextlib.AsyncExitStack()
        with self._mapped():
            self._client = self._make(broker, identity, will)
        self._paho = self._client._client  # noqa: SLF001  # aiomqtt offers no way to acknowledge
        self._paho.manual_ack_set(True)  # noqa: FBT003  # as paho has it
        self._paho.on_publish = self._acknowledge
        _fail_when_refused(self._client)

    def _make(self, broker: Broker, identity: Identity, will: Will | None) -> aiomqtt.Client:
        return aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=identity.password,
            identifier=identity.client_id,
            clean_session=not identity.durable,
            keepalive=broker.keepalive_s,
            will=None if will is None else aiomqtt.Will(*will, qos=1, retain=True),
            tls_context=None if broker.tls is None else tls.context(broker.tls),
            timeout=_CONNECT_S,
            queue_type=cast(type[asyncio.Queue[aiomqtt.Message]], partial(_Inbox, self._pass_on)),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerConnectionError: The broker is out of reach or refuses.
        """
        async with contextlib.AsyncExitStack() as opened:
            opened.callback(self._paho._sock_close)  # noqa: SLF001  # a late answer on it would take over
            connecting = asyncio.ensure_future(opened.enter_async_context(self._client))
            try:
                with self._mapped():
                    await asyncio.shield(connecting)
            except asyncio.CancelledError:
                await _finish(connecting)
                raise
            self._opened = opened.pop_all()
        self._paho.on_log = None  # this and a logger would put each packet into words
        self._paho.disable_logger()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect, if the connection is still there."""
        with self._mapped():
            await self._opened.aclose()

    async def ended(self) -> None:
        """Wait until the connection ends, or a message could not be passed on, and raise why.

        Raises:
            BrokerConnectionError: It ended.
        """
        with self._mapped():
            async for error in cast(AsyncIterator[Exception], self._client.messages):  # see _Inbox
                raise error

    def lose(self) -> None:
        """Let whoever publishes know that no acknowledgement will come."""
        self._lost = True
        for acknowledged in self._unanswered.values():
            self._fail(acknowledged, "a lost connection")

    def allow_last_publish(self) -> None:
        """Let one who says farewell publish once more."""
        self._lost = False

    async def subscribe(self, chosen: str, *, qos: int = 1) -> None:
        """Subscribe to a filter.

        Raises:
            BrokerConnectionError: The connection ended.
            PermanentError: The broker refuses.
        """
        with self._mapped():
            granted = await self._client.subscribe(chosen, qos=qos)
        raise_if_cancelled()
        for code in granted:
            value = code if isinstance(code, int) else code.value
            if value >= _REFUSED:
                raise PermanentError(f"subscription {chosen}", expected="to be granted", got=hex(value))

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the broker, but no longer than the connection lives.

        Raises:
            BrokerConnectionError: No acknowledgement came; it may have arrived all the same.
        """
        if self._lost:
            raise self._unacknowledged("a lost connection")
        loop = asyncio.get_running_loop()
        with self._mapped():
            sent = self._paho.publish(topic, payload, 1, retain)
        if sent.rc:
            raise self._unacknowledged(error_string(sent.rc))
        self._unanswered[sent.mid] = acknowledged = loop.create_future()
        deadline = loop.call_later(_PUBLISH_S, self._fail, acknowledged, f"none within {_PUBLISH_S} s")
        try:
            await acknowledged
        finally:
            deadline.cancel()
            self._unanswered.pop(sent.mid, None)

    def _acknowledge(self, _client: object, _userdata: object, mid: int, *_facts: object) -> None:
        """Let go on who waits for the broker's acknowledgement; paho calls this."""
        if (acknowledged := self._unanswered.get(mid)) is not None and not acknowledged.done():
            acknowledged.set_result(None)

    def _fail(self, acknowledged: asyncio.Future[None], got: str) -> None:
        if not acknowledged.done():
            acknowledged.set_exception(self._unacknowledged(got))

    def _unacknowledged(self, got: str) -> BrokerConnectionError:
        return BrokerConnectionError(self.address, expected="an acknowledgement", got=got)

    def _pass_on(self, message: aiomqtt.Message) -> None:
        def ack() -> None:
            self._paho.ack(message.mid, message.qos)

        topic = message.topic.value
        self._take(Incoming(topic, message.payload, message.retain, ack if message.qos else None))

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the errors of aiomqtt, the socket and our own deadlines into LinkError."""
        try:
            yield
        except _FOREIGN as error:
            said = tls.meaning(error) or type(error).__name__
            raise BrokerConnectionError(self.address, expected="a connection", got=said) from None


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
        except Exception as error:  # noqa: BLE001  # `ended` raises it
            super().put_nowait(error)


async def _finish(connecting: asyncio.Future[aiomqtt.Client]) -> None:
    """Let an attempt end: its thread cannot be cancelled, and what it opens later would stay open."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GIVE_UP_S):
            await asyncio.gather(connecting, return_exceptions=True)


def address(broker: Broker) -> str:
    """Return how errors call a broker."""
    return f"broker {broker.host}:{broker.port}"


def matches(chosen: str, topic: str) -> bool:
    """Tell whether a topic is one of those that a filter chooses."""
    return aiomqtt.Topic(topic).matches(chosen)


def raise_if_cancelled() -> None:
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
