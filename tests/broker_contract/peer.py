"""A plain MQTT client that acknowledges, drops and resumes when a test tells it to."""

import contextlib
import queue
import socket
import ssl
import threading
import time
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

VERSIONS = {"mqtt-3.1.1": MQTTProtocolVersion.MQTTv311, "mqtt-5": MQTTProtocolVersion.MQTTv5}
RECEIVE_MAXIMUM = 512
_EXPIRES_S = 3600
_REFUSED = 0x80


class Node(NamedTuple):
    """One address of the broker under test."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, address: str) -> "Node":
        """Return the node at `HOST:PORT` or `mqtt://[USER:PASSWORD@]HOST[:PORT]`."""
        url = urlsplit(address if "://" in address else f"mqtt://{address}")
        assert url.scheme == "mqtt", f"{address}: the rules are tested over mqtt://"
        password = None if url.password is None else unquote(url.password)
        return cls(url.hostname or "127.0.0.1", url.port or 1883, url.username, password)


class Peer:
    """One client; every wait ends with an AssertionError after the deadline.

    Args:
        node: Where it connects.
        client_id: Its client id.
        version: Version of MQTT.
        deadline_s: How long it waits for an event.
        durable: Whether the broker keeps its session; otherwise it starts a new one with each connection.
        will: Topic of its retained last will.
        tls: With its certificate; None for plain TCP.
    """

    def __init__(
        self,
        node: Node,
        client_id: str,
        version: MQTTProtocolVersion,
        deadline_s: float,
        *,
        durable: bool = False,
        will: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.client_id = client_id
        self.session_present = False
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        """What arrived, not acknowledged yet."""
        self.closed = threading.Event()
        """Set when the connection ended."""
        self._node = node
        self._version = version
        self._deadline_s = deadline_s
        self._durable = durable
        self._connack: queue.Queue[int] = queue.Queue()
        self._suback: queue.Queue[int] = queue.Queue()
        self._puback: dict[int, int] = {}
        self._will = will
        self._tls = tls
        self._client = self._new_client()

    def _new_client(self) -> mqtt.Client:
        """Return paho's client for one connection."""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=None if self._version == MQTTProtocolVersion.MQTTv5 else not self._durable,
            protocol=self._version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(RECEIVE_MAXIMUM)
        if self._node.username is not None:
            client.username_pw_set(self._node.username, self._node.password)
        if self._will is not None:
            client.will_set(self._will, b"will", qos=1, retain=True)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.closed.set()
        client.on_subscribe = lambda *facts: self._suback.put(facts[3][0].value)
        client.on_publish = self._on_publish
        client.on_message = lambda *facts: self.messages.put(facts[2])
        return client

    def _on_connect(self, *facts) -> None:
        self.session_present = facts[2].session_present
        self._connack.put(facts[3].value)

    def _on_publish(self, *facts) -> None:
        self._puback[facts[2]] = facts[3].value

    def connect(self) -> "Peer":
        """Connect, and again after the connection ended."""
        options = {}
        if self._version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            if self._durable:
                properties.SessionExpiryInterval = _EXPIRES_S
            options = {"clean_start": not self._durable, "properties": properties}
        self.closed.clear()
        self._puback.clear()
        self._client = self._new_client()
        self._client.connect(self._node.host, self._node.port, **options)
        self._client.loop_start()
        code = self._get(self._connack, "no CONNACK")
        assert code == 0, f"the broker refuses {self.client_id} with code {code:#x}"
        return self

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 1; a refusal is an AssertionError."""
        self._client.subscribe(topic_filter, 1)
        code = self._get(self._suback, f"no SUBACK for {topic_filter}")
        assert code < _REFUSED, f"the broker refuses a subscription to {topic_filter} with code {code:#x}"
        assert code == 1, f"the broker grants QoS {code} for {topic_filter}, not 1"

    def publish(self, topic: str, *payloads: bytes, retain: bool = False) -> list[int]:
        """Publish at QoS 1 and return the reason codes of the PUBACKs; with MQTT 3.1.1 they are all 0."""
        sent = [self._client.publish(topic, payload, qos=1, retain=retain).mid for payload in payloads]
        self._until(lambda: all(mid in self._puback for mid in sent) or self.closed.is_set(), "no PUBACK")
        assert not self.closed.is_set(), f"the broker closed the connection of {self.client_id}"
        return [self._puback.pop(mid) for mid in sent]

    def attempt(self, topic: str, payload: bytes) -> None:
        """Publish what the broker may refuse; wait until it has decided."""
        mid = self._client.publish(topic, payload, qos=1).mid
        self._until(lambda: mid in self._puback or self.closed.is_set(), "neither PUBACK nor end")

    def next(self) -> mqtt.MQTTMessage:
        """Return the next message, without acknowledging it."""
        return self._get(self.messages, f"no message for {self.client_id}")

    def take(self, count: int, *, ack: bool = True) -> list[bytes]:
        """Return the payloads of the next messages."""
        payloads = []
        for _ in range(count):
            message = self.next()
            payloads.append(message.payload)
            if ack:
                self.ack(message)
        return payloads

    def ack(self, message: mqtt.MQTTMessage) -> None:
        """Send the PUBACK of a message."""
        self._client.ack(message.mid, message.qos)

    def reconnect_if_closed(self) -> None:
        """Connect again if the broker ended the connection."""
        if self.closed.is_set():
            self.drop()
            self.connect()

    def wait_closed(self) -> None:
        """Wait until the broker closed the connection."""
        assert self.closed.wait(self._deadline_s), f"the connection of {self.client_id} stays open"

    def disconnect(self) -> None:
        """End the connection with DISCONNECT."""
        self._client.disconnect()
        self._client.loop_stop()
        self.messages = queue.Queue()

    def drop(self) -> None:
        """Close the socket without DISCONNECT; messages that were not acknowledged are forgotten here."""
        # Shut down first: the client's thread sees the end at once, not after its poll of a second.
        with contextlib.suppress(OSError, AttributeError):
            self._client.socket().shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        self.messages = queue.Queue()

    def _get(self, source: queue.Queue, missing: str):
        deadline = time.monotonic() + self._deadline_s
        while True:
            with contextlib.suppress(queue.Empty):
                return source.get(timeout=0.05)
            # What it sent before it closed is in the queue already.
            if source.empty() and self.closed.is_set():
                raise AssertionError(f"{missing}: the broker closed the connection")
            assert time.monotonic() < deadline, f"{missing} within {self._deadline_s:g} s"

    def _until(self, condition, missing: str) -> None:
        deadline = time.monotonic() + self._deadline_s
        while not condition():
            assert time.monotonic() < deadline, f"{missing} within {self._deadline_s:g} s"
            time.sleep(0.002)
