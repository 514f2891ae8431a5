"""One MQTT connection, from handshake to end. The only module that imports aiomqtt.

It works around several properties of aiomqtt 2.5.1 on paho 2.2.0, and uses private parts of both for that; a
test checks that they exist.
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
"""More concurrent publishes do not raise the throughput: they queue up inside paho."""

_CONNECT_S = 10.0
_ABANDON_S = 2.0
_PUBLISH_S = 10.0
_SUBACK_FAILURE = 0x80
_FOREIGN_ERRORS = (aiomqtt.MqttError, OSError, TimeoutError)


class BrokerConnectionError(TransientError):
    """The broker cannot be reached, refuses the client, or the connection was lost.

    Args:
        subject: What failed; with `reason`, usually the broker's address.
        reason: Why, in a few words; appended to the subject.
        hint: What to do about it.
    """

    def __init__(
        self,
        subject: str,
        *,
        reason: str | None = None,
        expected: str | None = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        sentence = subject if reason is None else f"{subject}: {reason}"
        super().__init__(sentence, expected=expected, got=got, hint=hint)
        self.reason = str(self) if reason is None else reason


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Client id and password, and whether the broker keeps the session while the client is offline."""

    client_id: str
    password: str | None = field(repr=False)
    durable: bool


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
        self._lost = False
        self._unacknowledged: dict[int, asyncio.Future[None]] = {}
        self._on_message = on_message
        self._opened = contextlib.AsyncExitStack()
        with self._mapped_errors():
            self._client = self._make_client(
                broker, identity, will
            )  # an aiomqtt Client serves one connection
        self._paho = self._client._client  # noqa: SLF001  # aiomqtt has no API for manual acknowledgement
        # Must be set before connecting: otherwise paho acknowledges a message before the application sees it.
        self._paho.manual_ack_set(True)  # noqa: FBT003  # paho's signature
        # aiomqtt's own publish() notices a lost connection only after its timeout, so PUBACKs are handled
        # here.
        self._paho.on_publish = self._on_puback
        _fail_early_when_refused(self._client)

    def _make_client(self, broker: Broker, identity: ClientIdentity, will: Will | None) -> aiomqtt.Client:
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
            queue_type=cast(type[asyncio.Queue[aiomqtt.Message]], partial(_Inbox, self._receive)),
            # Without it a TLS message of 100 KB takes 8.9 ms instead of 1.3 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
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
            # The iterator yields only the exceptions that _Inbox queued; it raises when the connection ends.
            async for error in cast(AsyncIterator[Exception], self._client.messages):
                raise error

    def fail_publishes(self) -> None:
        """Fail all publishes that wait for a PUBACK, and all later ones: the connection is lost."""
        self._lost = True
        for puback in self._unacknowledged.values():
            self._fail(puback, "the connection was lost")

    def allow_last_publish(self) -> None:
        """Allow publishing again after `fail_publishes`, for the offline status during shutdown."""
        self._lost = False

    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe to a filter.

        Raises:
            BrokerConnectionError: The connection was lost.
            PermanentError: The broker refuses the subscription.
        """
        with self._mapped_errors():
            granted = await self._client.subscribe(topic_filter, qos=qos)
        raise_if_cancelled()
        for code in granted:  # aiomqtt does not report a refusal
            value = code if isinstance(code, int) else code.value
            if value >= _SUBACK_FAILURE:
                raise PermanentError(f"the broker refused a subscription to {topic_filter} ({value:#x})")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the PUBACK. Fails at once when the connection is lost.

        Raises:
            BrokerConnectionError: No PUBACK arrived; the broker may have the message all the same.
        """
        if self._lost:
            raise self._not_acknowledged("the connection was lost")
        loop = asyncio.get_running_loop()
        with self._mapped_errors():
            sent = self._paho.publish(topic, payload, 1, retain)
        if sent.rc:
            raise self._not_acknowledged(error_string(sent.rc))
        # Set after publish(), but no PUBACK is missed: paho's callbacks run in this thread, between awaits.
        self._unacknowledged[sent.mid] = puback = loop.create_future()
        # call_later instead of asyncio.timeout: one timer, and no task switch per publish.
        deadline = loop.call_later(
            _PUBLISH_S, self._fail, puback, f"no acknowledgement within {_PUBLISH_S:g} s"
        )
        try:
            await puback
        finally:
            deadline.cancel()
            self._unacknowledged.pop(sent.mid, None)

    def _on_puback(self, _client: object, _userdata: object, mid: int, *_facts: object) -> None:
        """Complete the publish with this message id; called by paho, in the event loop's thread."""
        if (puback := self._unacknowledged.get(mid)) is not None and not puback.done():
            puback.set_result(None)

    def _fail(self, puback: asyncio.Future[None], reason: str) -> None:
        if not puback.done():
            puback.set_exception(self._not_acknowledged(reason))

    def _not_acknowledged(self, reason: str) -> BrokerConnectionError:
        return BrokerConnectionError(f"{self.address} did not acknowledge a message", reason=reason)

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
            raise BrokerConnectionError(self.address, reason=reason) from None


class _Inbox(asyncio.Queue[Any]):
    """Replaces aiomqtt's message queue: passes each message on as it is read from the socket.

    So no second queue grows in this process, and unread messages stay with the broker. The broker's in-flight
    window does not bound it: mosquitto before 2.0.13 ignores the window for a client that publishes.
    """

    def __init__(self, on_message: Callable[[aiomqtt.Message], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._on_message = on_message

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if not self.empty():
            return  # an earlier message failed and the connection ends; the broker redelivers this one
        try:
            self._on_message(item)
        except Exception as error:  # noqa: BLE001  # wait_closed raises it; paho would only log it
            super().put_nowait(error)


async def _wait_briefly(connecting: asyncio.Future[aiomqtt.Client]) -> None:
    """Wait for a cancelled connection attempt, whose thread may still open a socket."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ABANDON_S):
            await asyncio.gather(connecting, return_exceptions=True)


def address(broker: Broker) -> str:
    """Return how error messages name a broker: `broker HOST:PORT`."""
    return f"broker {broker.host}:{broker.port}"


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


def _fail_early_when_refused(client: aiomqtt.Client) -> None:
    """Make connecting fail at once, with the reason, if the connection closes before the CONNACK.

    aiomqtt only logs that, for example for a rejected certificate, and waits until its timeout.
    """
    errors: list[str] = []
    paho, connected, on_disconnect = client._client, client._connected, client._on_disconnect  # noqa: SLF001  # no public way

    def on_log(_client: object, _userdata: object, level: int, text: str) -> None:
        if level == MQTT_LOG_ERR:
            errors.append(text)

    def fail(*facts: Any) -> None:
        if not connected.done():
            connected.set_exception(aiomqtt.MqttError(tls.explain_refusal(errors[-1] if errors else "")))
        on_disconnect(*facts)

    paho.on_log = on_log
    paho.on_disconnect = fail
