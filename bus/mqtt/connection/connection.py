"""One MQTT connection, from handshake to end. With `paho_hooks` the only module that imports aiomqtt.

It speaks MQTT 5, in which a broker reports its limits and why it refuses a message, and falls back to 3.1.1
if the broker does not support MQTT 5.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar, cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bus.config import PASSWORD_VARIABLE, Broker
from bus.mqtt import tls
from bus.mqtt.connection.paho_hooks import Inbox, Socket, fail_early_when_refused
from bus.mqtt.connection.publisher import Publisher
from bus.mqtt.errors import BrokerConnectionError, BrokerRefusedError, ProtocolRefusedError
from schemas.errors import PermanentError

__all__ = [
    "CONCURRENT_PUBLISHES",
    "BrokerConnection",
    "BrokerConnectionError",
    "ClientIdentity",
    "Incoming",
    "Will",
]

T = TypeVar("T")

CONCURRENT_PUBLISHES = 20
"""More concurrent publishes do not raise the throughput: they queue up inside paho."""

_CONNECT_S = 10.0
_ABANDON_S = 2.0
_WATCH_S = 1.0
_SUBACK_FAILURE = 0x80
_UNSUPPORTED_PROTOCOL = 0x84
_WRONG_LOGIN = (0x86, 0x87)
_RECEIVE_MAXIMUM = 512  # less than a subscription's queue holds; mosquitto 2.0.11 forgets it after some acks
_NEVER_EXPIRES = 0xFFFFFFFF
_MAX_TEXT_BYTES = 65_535
_FOREIGN_ERRORS = (aiomqtt.MqttError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Client id and password, the session, and the version of MQTT.

    Args:
        client_id: Unique among the broker's clients.
        password: Of the broker's user.
        durable: Whether the broker keeps the session while the client is offline.
        protocol: Version of MQTT to speak.
        speaks_old: Whether the broker reported that it does not support MQTT 5.
    """

    client_id: str
    password: str | None = field(repr=False)
    durable: bool
    protocol: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V5
    speaks_old: bool = False

    def after(self, error: BrokerConnectionError, *, worked: bool) -> Self:
        """Return the identity for the attempt after one that failed, or after a connection that worked.

        Args:
            error: Why it failed or ended.
            worked: Whether it worked.
        """
        if isinstance(error, ProtocolRefusedError):
            newest = self.protocol == aiomqtt.ProtocolVersion.V5
            other = aiomqtt.ProtocolVersion.V311 if newest else aiomqtt.ProtocolVersion.V5
            return replace(self, protocol=other, speaks_old=self.speaks_old or error.explicit)
        if worked and not self.speaks_old:
            # A proxy closes early too while its broker is away, so this proves nothing about the broker.
            return replace(self, protocol=aiomqtt.ProtocolVersion.V5)
        return self


class Will(NamedTuple):
    """Retained message that the broker publishes when the connection breaks."""

    topic: str
    payload: bytes


class Incoming(NamedTuple):
    """A message received from the broker.

    Args:
        topic: Topic name.
        payload: Any bytes.
        retained: Whether the broker had retained it.
        ack: Sends the PUBACK; None at QoS 0.
    """

    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None] | None


class BrokerConnection:
    """An MQTT connection, open for the duration of an `async with`.

    Args:
        broker: Address and login.
        identity: Client id, password and session.
        will: Last will, if any.
        on_message: Called with each message as it is read from the socket; must not block. An exception that
            it raises ends the connection.
    """

    def __init__(
        self,
        broker: Broker,
        identity: ClientIdentity,
        will: Will | None,
        on_message: Callable[[Incoming], None],
    ) -> None:
        self.address = address(broker)
        self.session_resumed = False
        """Whether the broker kept the session of an earlier connection."""
        self._refused_protocol = False
        self._closed_early = False
        self._on_message = on_message
        self._opened = contextlib.AsyncExitStack()
        with self._mapped_errors():
            # An aiomqtt Client serves one connection.
            self._client = self._make_client(broker, identity, will)
        self._paho = self._client._client  # noqa: SLF001  # aiomqtt has no API for manual acknowledgement
        self._socket = Socket(self._client)
        # Must be set before connecting: otherwise paho acknowledges a message before the application sees it.
        self._paho.manual_ack_set(True)  # noqa: FBT003  # paho's signature
        self.publisher = Publisher(self.address, self._paho, self._socket, float(broker.keepalive_s))
        """Its publishes."""
        self._read_limits()
        fail_early_when_refused(self._client, self._note_early_close)

    def _make_client(self, broker: Broker, identity: ClientIdentity, will: Will | None) -> aiomqtt.Client:
        _check_text("user name", broker.username)
        _check_text("password", identity.password)
        return aiomqtt.Client(
            broker.host.strip("[]"),  # as IPv6 addresses stand in URLs
            broker.port,
            username=broker.username,
            password=identity.password,
            identifier=identity.client_id,
            protocol=identity.protocol,
            keepalive=broker.keepalive_s,
            will=None if will is None else aiomqtt.Will(*will, qos=1, retain=True),
            tls_context=None if broker.tls is None else tls.context(broker.tls),
            timeout=_CONNECT_S,
            queue_type=cast(type[asyncio.Queue[aiomqtt.Message]], partial(Inbox, self._receive)),
            # Without it a TLS message of 100 KB takes 8.9 ms instead of 1.3 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            **_session(identity),
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerConnectionError: The broker cannot be reached or refuses the client.
        """
        async with contextlib.AsyncExitStack() as opened:
            # aiomqtt leaves the socket open after a failed attempt; a late CONNACK on it would be accepted.
            opened.callback(self._paho._sock_close)  # noqa: SLF001  # paho has no public way
            connecting = asyncio.ensure_future(opened.enter_async_context(self._client))
            try:
                with self._mapped_errors():
                    # Shielded: aiomqtt connects in a thread, which a cancellation would leave running.
                    await asyncio.shield(connecting)
            except asyncio.CancelledError:
                await _wait_briefly(connecting)
                raise
            except BrokerConnectionError as error:
                if self._refused_protocol or self._closed_early:
                    raise ProtocolRefusedError(
                        self.address, reason=error.reason, explicit=self._refused_protocol
                    ) from None
                raise
            self._opened = opened.pop_all()
        # Even without a handler, paho formats a log line for each packet.
        self._paho.on_log = None
        self._paho.disable_logger()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect, unless the connection was lost already."""
        with self._mapped_errors():
            await self._opened.aclose()

    async def wait_closed(self) -> None:
        """Wait until the connection ends, or `on_message` fails, and raise the reason.

        Raises:
            BrokerConnectionError: The connection ended.
        """
        with self._mapped_errors():
            # The iterator yields only the exceptions that `Inbox` queued; it raises when the connection ends.
            async for error in cast(AsyncIterator[Exception], self._client.messages):
                raise error

    async def watch(self) -> None:
        """Raise when no byte makes progress any more while publishes wait for their PUBACK.

        Raises:
            BrokerConnectionError: The connection is dead.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            if self.publisher.is_waiting() or self.paused:
                self._socket.keep_alive()  # a PINGRESP is late for the same reason as a PUBACK
            if (reason := self.publisher.dead_reason()) is not None:
                raise BrokerConnectionError(self.address, reason=reason)

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the broker at present."""
        return self._socket.paused

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        self._socket.pause()

    def resume(self) -> None:
        """Read again."""
        self._socket.resume()

    def fail_publishes(self) -> None:
        """Fail all publishes that wait for a PUBACK, and all later ones: the connection is lost."""
        self.publisher.fail_all()

    def allow_last_publish(self) -> None:
        """Allow the offline status, which is sent `first`, after `fail_publishes`."""
        self.publisher.allow_last()
        self._socket.resume()

    async def until(self, arrival: Awaitable[T], silence_s: float) -> T:
        """Wait for something to arrive for as long as bytes arrive.

        Args:
            arrival: Cancelled if nothing arrives any more.
            silence_s: How long no byte may arrive, in seconds.

        Raises:
            TimeoutError: No byte arrived for that long.
        """
        waiting = asyncio.ensure_future(arrival)
        try:
            while True:
                before = self._socket.traffic()
                done, _ = await asyncio.wait({waiting}, timeout=silence_s)
                if done:
                    return waiting.result()
                # On a slow link it arrives behind all that the broker has queued, or that we still send.
                if self._socket.traffic() == before and not self.paused:
                    raise TimeoutError(f"nothing arrived for {silence_s:g} s")
        finally:
            waiting.cancel()

    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe to a filter.

        Raises:
            BrokerConnectionError: The connection was lost.
            PermanentError: The broker refuses the subscription.
        """
        with self._mapped_errors():
            subscribing = self._client.subscribe(topic_filter, qos=qos, timeout=float("inf"))
            granted = await self.until(subscribing, _CONNECT_S)
        raise_if_cancelled()
        for code in granted:  # aiomqtt does not report a refusal
            value = code if isinstance(code, int) else code.value
            if value >= _SUBACK_FAILURE:
                raise PermanentError(f"the broker refused a subscription to {topic_filter} ({value:#x})")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, first: bool = False) -> None:
        """Publish at QoS 1; see `Publisher.publish`."""
        with self._mapped_errors():
            await self.publisher.publish(topic, payload, retain=retain, first=first)

    def _read_limits(self) -> None:
        """Take the broker's limits from its CONNACK."""
        on_connect: Any = self._paho.on_connect

        def connected(client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
            self.publisher.most_bytes = getattr(properties, "MaximumPacketSize", None)
            self.session_resumed = flags.session_present
            self._refused_protocol = reason.value == _UNSUPPORTED_PROTOCOL
            if on_connect is not None:
                on_connect(client, data, flags, reason, properties)

        self._paho.on_connect = connected

    def _note_early_close(self) -> None:
        self._closed_early = True

    def _receive(self, message: aiomqtt.Message) -> None:
        def ack() -> None:
            self._paho.ack(message.mid, message.qos)

        topic = message.topic.value
        self._on_message(Incoming(topic, message.payload, message.retain, ack if message.qos else None))

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        """Turn errors of aiomqtt, of the socket and timeouts into BrokerConnectionError."""
        try:
            yield
        except _FOREIGN_ERRORS as error:
            reason = tls.explain(error) or type(error).__name__
            raise BrokerConnectionError(self.address, reason=reason, hint=_login_hint(error)) from None


def _check_text(what: str, text: str | None) -> None:
    """Raise BrokerRefusedError for a text that MQTT cannot carry; it is not quoted, it may be a password."""
    try:
        size = len((text or "").encode())
    except UnicodeEncodeError:
        raise BrokerRefusedError(f"the {what} is not UTF-8") from None
    if size > _MAX_TEXT_BYTES:
        raise BrokerRefusedError(f"the {what} has {size} bytes", hint=f"MQTT allows {_MAX_TEXT_BYTES}")


def _session(identity: ClientIdentity) -> dict[str, Any]:
    """Return the options of aiomqtt for a session that ends with the connection, or is kept."""
    if identity.protocol != aiomqtt.ProtocolVersion.V5:
        return {"clean_session": not identity.durable}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    if identity.durable:
        properties.SessionExpiryInterval = _NEVER_EXPIRES
    return {"clean_start": not identity.durable, "properties": properties}


def _login_hint(error: BaseException) -> str | None:
    code = getattr(error, "rc", None)
    if getattr(code, "value", code) not in _WRONG_LOGIN:
        return None
    return f"check the user name, and the password in {PASSWORD_VARIABLE}"


async def _wait_briefly(connecting: asyncio.Future[aiomqtt.Client]) -> None:
    """Wait for a cancelled connection attempt, whose thread may still open a socket."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ABANDON_S):
            await asyncio.gather(connecting, return_exceptions=True)


def address(broker: Broker) -> str:
    """Return how error messages name a broker: `broker HOST:PORT`, with brackets around an IPv6 address."""
    bare = broker.host.strip("[]")
    host = f"[{bare}]" if ":" in bare else bare
    return f"broker {host}:{broker.port}"


def matches(topic_filter: str, topic: str) -> bool:
    """Return True if an MQTT topic filter matches a topic."""
    return aiomqtt.Topic(topic).matches(topic_filter)


def raise_if_cancelled() -> None:
    """Re-raise a cancellation that `asyncio.wait_for`, used by aiomqtt, swallowed.

    Source: CPython issue 86296; fixed in Python 3.12.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
