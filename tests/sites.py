"""A provisioned site, its real brokers, and plain MQTT clients that try what they may not."""

import contextlib
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bus.broker.locate import Mosquitto
from bus.broker.process import is_listening
from bus.config import Tls
from bus.security import certificates
from bus.security.certificates import Authority
from cli.main import main

WAIT_S = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait where there is no event loop until a condition holds; fail after the deadline."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {WAIT_S} s: {condition}"
        time.sleep(0.005)


def free_ports() -> int:
    """Return a port that is free, as is the next one; below those that the kernel gives to connections."""
    while True:
        port = random.randrange(20_000, 32_000, 2)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port


def provision(directory: Path, *words: str) -> None:
    """Run `gleaner provision`."""
    assert main(["provision", str(directory), *words]) == 0


def authority(site: Path, name: str = "ca") -> Authority:
    """Return an authority of a site."""
    folder = site / "authority"
    return Authority((folder / f"{name}.pem").read_bytes(), (folder / f"{name}.key").read_bytes())


def files(folder: Path, stem: str, ca: Path | None = None) -> Tls:
    """Return the configuration of files as provisioning names them."""
    return Tls(
        ca=str(ca or folder / "ca.pem"),
        certificate=str(folder / f"{stem}.pem"),
        key=str(folder / f"{stem}.key"),
    )


def issue(folder: Path, signer: Authority, name: str, **changes: object) -> Tls:
    """Write a client's certificate of any kind, for tests; `ca.pem` has to be there."""
    key = certificates.new_key()
    (folder / f"{name}.key").write_bytes(key)
    made = certificates.client_certificate(signer, key, name, **({"days": 2} | changes))  # type: ignore[arg-type]  # a test's own words
    (folder / f"{name}.pem").write_bytes(made)
    return files(folder, name)


@contextmanager
def broker_of(folder: Path, port: int, program: Mosquitto) -> Iterator[subprocess.Popen[bytes]]:
    """Run mosquitto on the configuration in a provisioned folder; yields its process."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(program.binary), "-c", str(folder / "mosquitto.conf")],
            env=program.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: is_listening(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield process
    finally:
        process.terminate()
        process.wait()


class Client:
    """A plain MQTT client, with whatever certificate and client id a test gives it.

    Args:
        port: On loopback.
        tls: Its certificate; None for plain TCP.
        client_id: What it claims to be.
        protocol: Of MQTT.
        will: Topic of its last will.
        durable: Whether it wants the session that the broker keeps for its id.
    """

    def __init__(
        self,
        port: int,
        tls: Tls | None,
        *,
        client_id: str = "",
        protocol: int = mqtt.MQTTv311,
        will: str | None = None,
        durable: bool = False,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.acknowledged = 0
        self.connections = 0
        self.disconnected = threading.Event()
        self._port = port
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == mqtt.MQTTv5 else not durable,
            protocol=protocol,  # type: ignore[arg-type]  # an IntEnum
            reconnect_on_failure=False,
        )
        self._client.max_inflight_messages_set(1000)
        if tls is not None:
            self._client.tls_set_context(client_context(tls))
        if will is not None:
            self._client.will_set(will, b"will", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.disconnected.set()
        self._client.on_message = lambda *facts: self.received.append((facts[2].topic, facts[2].payload))
        self._client.on_publish = self._on_publish
        self._subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    def _on_connect(self, *facts: object) -> None:
        self.connections += facts[3] == 0

    def _on_publish(self, *_: object) -> None:
        self.acknowledged += 1

    def __enter__(self) -> Self:
        assert self.connect(), "the broker refused"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def connect(self) -> bool:
        """Tell whether the broker takes this client, and stay connected if so."""
        try:
            self._client.connect("127.0.0.1", self._port)
        except OSError:
            return False
        self._client.loop_start()
        wait_until(lambda: self.connections > 0 or self.disconnected.is_set())
        if not self.connections:
            self._client.loop_stop()
        return self.connections > 0

    def subscribe(self, *filters: str) -> None:
        """Subscribe and wait for the broker's word."""
        for at in range(0, len(filters), 20):
            self._subscribed.clear()
            self._client.subscribe([(chosen, 1) for chosen in filters[at : at + 20]])
            assert self._subscribed.wait(WAIT_S)

    def publish(self, *topics: str, payload: str, retain: bool = False) -> None:
        """Publish the same to all topics, and wait until the broker has taken or refused it."""
        wanted = self.acknowledged + len(topics)
        for topic in topics:
            self._client.publish(topic, payload, qos=1, retain=retain)
        wait_until(lambda: self.acknowledged >= wanted)

    def got(self, payload: str) -> set[str]:
        """Return the topics on which this payload arrived."""
        return {topic for topic, content in self.received if content == payload.encode()}

    def drop(self) -> None:
        """Break the connection without a farewell, so that the broker publishes the will."""
        self._client.loop_stop()
        with contextlib.suppress(OSError):
            self._client.socket().close()  # type: ignore[union-attr]  # it is connected


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return a context that checks the broker, with or without a certificate of its own."""
    made = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate:
        made.load_cert_chain(tls.certificate, tls.key)
    return made
