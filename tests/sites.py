"""Provisioned sites, their brokers, and a plain MQTT client with any certificate."""

import contextlib
import re
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
from bus.broker.process import free_port, is_listening
from bus.config import Tls
from bus.security import certificates
from bus.security.certificates import Authority
from cli.main import main
from tests.conftest import DEADLINE_S


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, without an event loop; fail after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {DEADLINE_S} s: {condition}"
        time.sleep(0.005)


def free_ports() -> int:
    """Return a port that is reserved together with the next one."""
    return free_port(count=2)


def provision(directory: Path, *words: str) -> None:
    """Run `gleaner provision`."""
    assert main(["provision", str(directory), *words]) == 0


def authority(site: Path, name: str = "ca") -> Authority:
    """Return a CA of a site."""
    folder = site / "authority"
    return Authority((folder / f"{name}.pem").read_bytes(), (folder / f"{name}.key").read_bytes())


def files(folder: Path, stem: str, ca: Path | None = None) -> Tls:
    """Return the TLS configuration for files as `gleaner provision` names them."""
    return Tls(
        ca=str(ca or folder / "ca.pem"),
        certificate=str(folder / f"{stem}.pem"),
        key=str(folder / f"{stem}.key"),
    )


def issue(folder: Path, signer: Authority, name: str, **changes: object) -> Tls:
    """Write a client's key and certificate to a folder that has a `ca.pem`; return its TLS configuration."""
    key = certificates.new_key()
    (folder / f"{name}.key").write_bytes(key)
    made = certificates.client_certificate(signer, key, name, **({"days": 2} | changes))  # type: ignore[arg-type]  # options of client_certificate
    (folder / f"{name}.pem").write_bytes(made)
    return files(folder, name)


@contextmanager
def broker_of(folder: Path, port: int, program: Mosquitto) -> Iterator[subprocess.Popen[bytes]]:
    """Run mosquitto with the configuration in a folder; yield its process, fail if it ends early."""
    log_path = folder / "log"
    listeners = re.findall(r"^listener (\d+)", (folder / "mosquitto.conf").read_text(), re.MULTILINE)
    ports = {port, *map(int, listeners)}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [str(program.binary), "-c", str(folder / "mosquitto.conf")],
            env=program.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: all(map(is_listening, ports)) or process.poll() is not None)
        assert process.poll() is None, log_path.read_text()[-2000:]
        yield process
        assert process.poll() is None, (
            f"mosquitto ended with {process.returncode}: {log_path.read_text()[-2000:]}"
        )
    finally:
        process.terminate()
        process.wait()


class Client:
    """A plain MQTT client with any certificate and client id.

    Args:
        port: Port on loopback.
        tls: Files with its certificate; None for plain TCP.
        client_id: Client id that it claims.
        protocol: MQTT version, a constant of paho.
        will: Topic of its last will.
        durable: Whether it resumes the session of its client id.
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
        """Connect; return whether the broker accepted this client."""
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
        """Subscribe and wait for the SUBACK."""
        for start in range(0, len(filters), 20):
            self._subscribed.clear()
            self._client.subscribe([(topic_filter, 1) for topic_filter in filters[start : start + 20]])
            assert self._subscribed.wait(DEADLINE_S)

    def publish(self, *topics: str, payload: str, retain: bool = False) -> None:
        """Publish one payload on several topics and wait for the PUBACKs, which refused messages get too."""
        expected = self.acknowledged + len(topics)
        for topic in topics:
            self._client.publish(topic, payload, qos=1, retain=retain)
        wait_until(lambda: self.acknowledged >= expected)

    def got(self, payload: str) -> set[str]:
        """Return the topics of the received messages with this payload."""
        return {topic for topic, content in self.received if content == payload.encode()}

    def drop(self) -> None:
        """Close the socket without DISCONNECT, so that the broker publishes the will."""
        self._client.loop_stop()
        with contextlib.suppress(OSError):
            self._client.socket().close()  # type: ignore[union-attr]  # it is connected


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return an SSL context that verifies the broker, with the client certificate if there is one."""
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
