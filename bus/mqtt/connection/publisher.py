"""The publishes of one connection: how many bytes are in flight, and which publishes are acknowledged."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from paho.mqtt.client import error_string
from paho.mqtt.reasoncodes import ReasonCode

from bus.mqtt.connection.paho_hooks import TOO_LARGE, Socket, accept_too_large
from bus.mqtt.connection.progress import LinkProgress, SendWindow
from bus.mqtt.errors import RIGHTS_HINT, BrokerConnectionError, MessageTooLargeError, PublishRefusedError

_NO_MATCHING_SUBSCRIBERS = 0x10
_HEADER_BYTES = 16  # upper bound of fixed header, lengths, packet id and empty properties
_MOST_TOPIC_BYTES = 65_535


class _Pending(NamedTuple):
    """A publish without a PUBACK."""

    puback: asyncio.Future[None]
    size_bytes: int
    mark: int
    sent_at: float
    first: bool


class Publisher:
    """Publishes at QoS 1 on one connection.

    Bounded: bytes without a PUBACK by `SendWindow`; further callers wait in order of arrival.

    Args:
        address: How errors name the broker.
        paho: The client, not connected yet; its callback `on_publish` is taken.
        socket: Its socket.
        silence_s: How long no byte may make progress, in seconds.
    """

    def __init__(self, address: str, paho: Any, socket: Socket, silence_s: float) -> None:
        self.most_bytes: int | None = None
        """The broker's Maximum Packet Size."""
        self.awaited = 0
        """Publishes that a caller waits for; the Status is not among them."""
        self.unmatched = False
        """Whether the last PUBACK reported that its topic has no subscriber."""
        self.on_change: Callable[[], None] = _nothing
        """Called when `awaited` changes."""
        self._address = address
        self._paho = paho
        self._socket = socket
        self._lost = False
        self._allows_last = False
        self._unacknowledged: dict[int, _Pending] = {}
        self._progress = LinkProgress(silence_s)
        self._window = SendWindow()
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        # aiomqtt's own publish() notices a lost connection only after its timeout, so PUBACKs are handled
        # here.
        paho.on_publish = self._on_puback
        accept_too_large(paho)

    def is_waiting(self) -> bool:
        """Return True while a PUBACK is missing."""
        return bool(self._progress)

    def is_first_waiting(self) -> bool:
        """Return True while a publish that was sent `first` has no PUBACK."""
        return any(pending.first for pending in self._unacknowledged.values())

    def dead_reason(self) -> str | None:
        """Return why the connection is dead, None if it is not; call it regularly."""
        silent_s = self._progress.dead_for_s(
            self._socket.traffic(), time.monotonic(), paused=self._socket.paused
        )
        if silent_s is None:
            return None
        return f"no byte moved for {silent_s:.0f} s, {len(self._progress)} messages are not acknowledged"

    def fail_all(self) -> None:
        """Fail all publishes that wait for a PUBACK, and all later ones: the connection is lost."""
        self._lost = True
        self._room.set()
        for pending in self._unacknowledged.values():
            self._fail(pending.puback, self._not_acknowledged("the connection was lost"))

    def allow_last(self) -> None:
        """Allow a publish that is sent `first` after `fail_all`; all others still fail."""
        self._allows_last = True

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, first: bool = False) -> None:
        """Publish at QoS 1 and wait for the PUBACK for as long as the connection lives.

        If cancelled, the message may have been published.

        Args:
            topic: Topic name.
            payload: Any bytes.
            retain: Whether the broker keeps it.
            first: Send it without waiting until earlier ones are confirmed; for the small Status.

        Raises:
            MessageTooLargeError: It is larger than the broker accepts, or its topic than MQTT does.
            BrokerConnectionError: No PUBACK arrived; the broker may still have received the message.
        """
        topic_bytes = len(topic.encode())
        if topic_bytes > _MOST_TOPIC_BYTES:  # derived from a topic that some client chose
            raise MessageTooLargeError(
                f"a topic has {topic_bytes} bytes, and MQTT allows {_MOST_TOPIC_BYTES}"
            )
        size_bytes = _HEADER_BYTES + topic_bytes + len(payload)
        if self.most_bytes is not None and size_bytes > self.most_bytes:
            raise MessageTooLargeError(
                f"{self._address} accepts packets of at most {self.most_bytes} bytes (its Maximum "
                f"Packet Size), and this message has {size_bytes}"
            )
        if first:
            await self._send(topic, payload, size_bytes, retain=retain, first=True)
            return
        self.awaited += 1
        self.on_change()
        try:
            async with self._turn:  # first come, first served
                while not self._window.has_room(size_bytes) and not self._lost:
                    self._room.clear()
                    await self._room.wait()
                puback = self._send(topic, payload, size_bytes, retain=retain)
            await puback
        finally:
            self.awaited -= 1
            self.on_change()

    def _send(
        self, topic: str, payload: bytes, size_bytes: int, *, retain: bool, first: bool = False
    ) -> asyncio.Future[None]:
        if self._lost and not (first and self._allows_last):
            raise self._not_acknowledged("the connection was lost")
        sent = self._paho.publish(topic, payload, 1, retain)
        if sent.rc:
            raise self._not_acknowledged(error_string(sent.rc))
        # Set after publish(), but no PUBACK is missed: paho's callbacks run in this thread, between awaits.
        puback = asyncio.get_running_loop().create_future()
        mark = self._window.started(size_bytes)
        self._unacknowledged[sent.mid] = _Pending(puback, size_bytes, mark, time.monotonic(), first)
        self._progress.started(sent.mid, end=self._socket.end_of_stream(), size_bytes=size_bytes)
        return puback

    def _on_puback(
        self, _client: object, _userdata: object, mid: int, reason: ReasonCode, *_facts: object
    ) -> None:
        """Complete the publish with this message id; called by paho, in the event loop's thread."""
        if (pending := self._unacknowledged.pop(mid, None)) is None:
            return
        self.unmatched = reason.value == _NO_MATCHING_SUBSCRIBERS
        self._progress.confirmed(mid)
        self._window.confirmed(pending.size_bytes, pending.mark, time.monotonic() - pending.sent_at)
        self._room.set()
        if reason.is_failure:
            self._fail(pending.puback, self._refused(reason, pending.size_bytes))
        elif not pending.puback.done():
            pending.puback.set_result(None)

    def _refused(self, reason: ReasonCode, size_bytes: int) -> Exception:
        if reason.value == TOO_LARGE:
            return MessageTooLargeError(
                f"{self._address} refused a message of {size_bytes} bytes as too large (mosquitto's "
                "message_size_limit)"
            )
        return PublishRefusedError(f"{self._address} refused a message", reason=str(reason), hint=RIGHTS_HINT)

    @staticmethod
    def _fail(puback: asyncio.Future[None], error: Exception) -> None:
        if not puback.done():
            puback.set_exception(error)

    def _not_acknowledged(self, reason: str) -> BrokerConnectionError:
        return BrokerConnectionError(f"{self._address} did not acknowledge a message", reason=reason)


def _nothing() -> None:
    """Do nothing."""
