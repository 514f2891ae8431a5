"""TLS: certificates, the two ports of a broker, client ids, and the errors of a refused client."""

import asyncio
import gc
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from bus.config import Broker, ConfigError, Tls
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.mqtt.tls import context
from bus.security import certificates
from bus.security.certificates import Authority
from tests.cli.conftest import gleaner, start
from tests.conftest import DEADLINE_S, ROOT, eventually, running
from tests.sites import (
    Client,
    authority,
    broker_of,
    client_context,
    files,
    free_ports,
    issue,
    provision,
    wait_until,
)

PI_1, PI_2 = "edge-1.pi-1", "edge-1.pi-2"


@dataclass(frozen=True)
class Edge:
    """A provisioned edge node with a running broker: two devices, a handler, an operator."""

    site: Path
    port: int
    broker: subprocess.Popen[bytes]

    @property
    def folder(self) -> Path:
        return self.site / "edges" / "edge-1"

    def device(self, name: str) -> Tls:
        return files(self.site / "devices" / name, "device")

    @property
    def operator(self) -> Tls:
        return files(self.site / "operator", "operator")


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory) -> tuple[Path, int]:
    """A site, and the port of its edge's broker."""
    site, port = tmp_path_factory.mktemp("site"), free_ports()
    node = ("--edge", "edge-1", "--edge-host", f"127.0.0.1:{port}", "--devices", "pi-1,pi-2")
    provision(site, "--cloud", f"127.0.0.1:{free_ports()}", *node)
    return site, port


@pytest.fixture
def edge(provisioned, mosquitto) -> Iterator[Edge]:
    """The edge with a broker for each test: if one ends, no other test is affected."""
    site, port = provisioned
    with broker_of(site / "edges" / "edge-1", port, mosquitto) as broker:
        yield Edge(site, port, broker)


def foreign() -> Authority:
    """Return a CA that the site does not trust."""
    key = certificates.new_key()
    return Authority(certificates.authority_certificate(key, "foreign", days=2), key)


def strangers(edge: Edge) -> dict[str, tuple[int, Tls | None]]:
    """Return clients that must be refused: port and TLS files by a description."""
    here = edge.folder
    long_ago = datetime.now(UTC) - timedelta(days=30)
    return {
        "expired": (edge.port, issue(here, authority(edge.site), "late", now=long_ago)),
        "foreign CA": (edge.port, issue(here, foreign(), PI_1)),
        "no certificate": (edge.port, Tls(ca=str(here / "ca.pem"))),
        "plain TCP": (edge.port, None),
        "no certificate at the other port": (edge.port + 1, Tls(ca=str(here / "ca.pem"))),
        "plain TCP at the other port": (edge.port + 1, None),
        "a broker's own certificate": (edge.port, files(here, "broker")),
        "a device at the operator's port": (edge.port + 1, edge.device(PI_1)),
        "the operator at the devices' port": (edge.port, edge.operator),
    }


def test_g5_clients_without_a_valid_certificate_are_refused(edge):
    """Without a certificate, with an invalid one, or with one for the other port, a client is refused."""
    refused = {name: not Client(port, tls).connect() for name, (port, tls) in strangers(edge).items()}
    assert refused == dict.fromkeys(refused, True)
    with Client(edge.port, edge.device(PI_1)), Client(edge.port + 1, edge.operator):
        pass  # accepted, so the certificate was the reason above


@pytest.mark.parametrize("port", [0, 1], ids=["devices", "operator"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_g5_old_tls_is_refused(edge, port):
    """The broker refuses TLS 1.1 and accepts 1.2 and 1.3."""
    tls = (edge.device(PI_1), edge.operator)[port]
    for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = client_context(tls)
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = version
        client.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", edge.port + port), timeout=DEADLINE_S) as plain:
            if version == ssl.TLSVersion.TLSv1_1:
                with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                    client.wrap_socket(plain, server_hostname="127.0.0.1")
            else:
                client.wrap_socket(plain, server_hostname="127.0.0.1").close()


@pytest.mark.parametrize("durable", [False, True], ids=["clean", "durable"])
def test_g5_a_claimed_client_id_has_no_effect(edge, durable):
    """A client that claims another's id neither disconnects it nor gets its session or messages."""
    result = "gleaner/v1/result/edge-1/pi-1"
    with (
        Client(edge.port, files(edge.folder, "edge"), client_id="edge-1.edge") as handler,
        Client(edge.port, edge.device(PI_1), client_id=PI_1, durable=durable) as owner,
    ):
        owner.subscribe(result)
        with Client(edge.port, edge.device(PI_2), client_id=PI_1, durable=durable) as thief:
            thief.subscribe(result, "#")
            handler.publish(result, "gleaner/v1/result/edge-1/pi-2", payload="there")
            wait_until(lambda: owner.got("there") == {result})
            wait_until(lambda: thief.got("there") == {"gleaner/v1/result/edge-1/pi-2"})
        assert not owner.disconnected.is_set()


def test_g5_queued_messages_are_delivered_to_their_device_only(edge):
    """Messages kept for an offline device are not delivered to another one that claims its client id."""
    result = "gleaner/v1/result/edge-1/pi-1"
    with Client(edge.port, edge.device(PI_1), client_id=PI_1, durable=True) as owner:
        owner.subscribe(result)
    with (
        Client(edge.port, files(edge.folder, "edge")) as handler,
        Client(edge.port, edge.device(PI_2), client_id=PI_1, durable=True) as thief,
    ):
        handler.publish(result, payload="kept for pi-1")
        thief.subscribe("#")
        handler.publish("gleaner/v1/result/edge-1/pi-2", payload="end")
        wait_until(lambda: thief.got("end"))
        assert not thief.got("kept for pi-1")
    with Client(edge.port, edge.device(PI_1), client_id=PI_1, durable=True) as owner:
        wait_until(lambda: owner.got("kept for pi-1") == {result})


def test_g5_a_reload_applies_the_acl_to_connected_clients(edge):
    """After SIGHUP an added device may publish and a removed one may not, without reconnecting."""
    photo = "gleaner/v1/photo/edge-1/pi-3"
    with Client(edge.port + 1, edge.operator) as operator:
        operator.subscribe("gleaner/v1/photo/#")
        provision(edge.site, "--edge", "edge-1", "--devices", "pi-3")
        with Client(edge.port, edge.device("edge-1.pi-3")) as device:
            edge.broker.send_signal(signal.SIGHUP)
            wait_until(lambda: device.publish(photo, payload="mine") or operator.got("mine") == {photo})
            provision(edge.site, "--remove", "edge-1.pi-3")
            edge.broker.send_signal(signal.SIGHUP)
            wait_until(lambda: is_blocked(device, operator, photo))


def is_blocked(device: Client, operator: Client, topic: str) -> bool:
    """Return True if a message of the device does not arrive before a later one of the operator."""
    before = len(operator.received)
    device.publish(topic, payload="again")
    operator.publish(topic, payload="end")
    wait_until(lambda: (topic, b"end") in operator.received[before:])
    return (topic, b"again") not in operator.received[before:]


def test_a_refused_message_does_not_end_the_connection(edge):
    """The broker drops a message that the client may not publish; the next one is delivered."""
    with Client(edge.port, edge.device(PI_1)) as sender, Client(edge.port + 1, edge.operator) as operator:
        operator.subscribe("gleaner/#")
        topics = ("gleaner/v1/photo/edge-1/pi-2", "gleaner/v1/photo/edge-1/pi-1")
        sender.publish(*topics, payload="photo")
        wait_until(lambda: operator.got("photo") == {topics[1]})
        assert not sender.disconnected.is_set()


async def test_two_clients_share_the_operator_certificate(edge):
    """The operator's port does not replace client ids, so two commands can run at the same time."""
    broker = Broker(port=edge.port + 1, tls=edge.operator)
    one, two = Bus(broker, transient_client_id("one")), Bus(broker, transient_client_id("two"))
    async with running(one, two):
        assert one.counters["bus.disconnected"] == two.counters["bus.disconnected"] == 0


REFUSALS = {
    "expired": "our certificate has expired",
    "foreign CA": "our certificate is not signed by the CA of that port",
    "no certificate": "requires a client certificate",
    "plain TCP": "TLS on one side only?",
    "a broker's own certificate": "our certificate is not a client certificate",
    "a device at the operator's port": "our certificate is not signed by the CA of that port",
}


async def connection_error(bus: Bus, attempts: int = 1) -> str:
    """Return why a client cannot connect, after a number of attempts."""
    connection = asyncio.create_task(bus.run())
    await eventually(lambda: bus.counters["bus.disconnected"] >= attempts)
    connection.cancel()
    await asyncio.wait({connection})
    return bus.last_error


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_a_refused_connection_states_the_cause(edge, name):
    """An attempt that the broker refuses ends with an explanation, and the next attempt follows."""
    port, tls = strangers(edge)[name]
    bus = Bus(Broker(port=port, tls=tls), "stranger", presence=Presence("edge-1", "pi-1"))
    assert REFUSALS[name] in await connection_error(bus, attempts=2)


# paho leaves closing the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_with_an_untrusted_certificate_is_refused(edge):
    """A client does not connect to a broker whose certificate its CA did not sign."""
    (edge.folder / "foreign.pem").write_bytes(foreign().certificate)
    tls = msgspec.structs.replace(edge.device(PI_1), ca=str(edge.folder / "foreign.pem"))
    bus = Bus(Broker(port=edge.port, tls=tls), "device", presence=Presence("edge-1", "pi-1"))
    assert "is not valid for that host" in await connection_error(bus)
    gc.collect()


# paho leaves closing the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_g5_a_broker_with_a_revoked_certificate_is_refused(edge, tmp_path):
    """Where a list is configured; it is read for each connection, so a copied one needs no restart."""
    crl = tmp_path / "revoked.crl"
    serial = certificates.read((edge.folder / "broker.pem").read_bytes()).serial
    crl.write_bytes(certificates.revocation_list(authority(edge.site), [serial]))
    tls = msgspec.structs.replace(edge.device(PI_1), crl=str(crl))
    bus = Bus(Broker(port=edge.port, tls=tls), "device", presence=Presence("edge-1", "pi-1"))
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run())
        await eventually(lambda: "is revoked" in bus.last_error)
        crl.write_bytes(certificates.revocation_list(authority(edge.site), []))
        await bus.connected()
        connection.cancel()
    gc.collect()


# paho leaves closing the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_g5_a_list_of_another_authority_lets_no_broker_pass(edge, tmp_path):
    """A revocation list of another CA does not prove that the broker's certificate is valid."""
    (tmp_path / "revoked.crl").write_bytes(certificates.revocation_list(foreign(), []))
    tls = msgspec.structs.replace(edge.device(PI_1), crl=str(tmp_path / "revoked.crl"))
    bus = Bus(Broker(port=edge.port, tls=tls), "device", presence=Presence("edge-1", "pi-1"))
    assert "has no list of the CA" in await connection_error(bus)
    gc.collect()


async def test_a_missing_permission_is_an_error(edge, monkeypatch):
    """A component that may not write and read its own Status gets an error that explains it."""
    monkeypatch.setattr("bus.mqtt.status_probe._PROBE_S", 0.3)
    bus = Bus(Broker(port=edge.port, tls=edge.device(PI_1)), "d", presence=Presence("edge-1", "pi-2"))
    error = await connection_error(bus)
    assert "gleaner/v1/status/edge-1/pi-2 was not received within 0.3 s" in error
    assert "may this client read and write it?" in error


@pytest.fixture
def own(tmp_path) -> Tls:
    """TLS files of a client, signed by its own CA."""
    signer = foreign()
    (tmp_path / "ca.pem").write_bytes(signer.certificate)
    issue(tmp_path, signer, "other")
    (tmp_path / "own.crl").write_bytes(certificates.revocation_list(signer, []))
    return msgspec.structs.replace(issue(tmp_path, signer, "own"), crl=str(tmp_path / "own.crl"))


@pytest.mark.parametrize("name", ["ca.pem", "own.pem", "own.key", "own.crl"])
@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", b"\x00\xff"], ids=["missing", "empty", "text", "bytes"]
)
def test_an_unusable_file_is_an_error_that_names_it(own, tmp_path, name, content):
    """A missing or invalid file raises ConfigError with its path."""
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        context(own)


async def test_files_that_are_being_replaced_end_no_service(own, tmp_path):
    """A renewed certificate is copied before its key: a client that reconnects meanwhile tries again."""
    key = tmp_path / "own.key"
    bus = Bus(Broker(port=free_ports(), tls=own), "device")  # where no broker listens
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run())
        await eventually(lambda: "refused" in bus.last_error)
        renewed = key.read_bytes()
        key.write_bytes(renewed[: len(renewed) // 2])
        await eventually(lambda: str(key) in bus.last_error)
        key.write_bytes(renewed)
        await eventually(lambda: "refused" in bus.last_error)
        connection.cancel()


def test_the_key_of_another_certificate_is_an_error(own, tmp_path):
    """A key that does not belong to the certificate raises ConfigError."""
    with pytest.raises(ConfigError, match="its own"):
        context(msgspec.structs.replace(own, key=str(tmp_path / "other.key")))


_ON_A_TERMINAL = """
import os, sys
os.open(os.ttyname(0), os.O_RDWR)  # becomes the controlling terminal, on which OpenSSL would prompt
from bus.config import Tls
from bus.mqtt.tls import context
try:
    context(Tls(ca=sys.argv[1], certificate=sys.argv[2], key=sys.argv[3]))
except Exception as error:
    print(error)
"""


def test_an_encrypted_key_does_not_prompt(own, tmp_path):
    """OpenSSL does not prompt for a pass phrase on the terminal, where a service would hang."""
    path = tmp_path / "own.key"
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ON_A_TERMINAL, own.ca, own.certificate, own.key],
            cwd=ROOT,
            stdin=terminal,
            stdout=subprocess.PIPE,
            start_new_session=True,
            timeout=DEADLINE_S,
            check=True,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert b"its own unencrypted key" in done.stdout


async def test_a_service_with_a_missing_key_does_not_start(edge, tmp_path):
    """`gleaner device` exits with 1 and names the missing key file."""
    text = (edge.site / "devices" / PI_1 / "device.toml").read_text()
    config = tmp_path / "device.toml"
    config.write_text(text.replace("device.key", "none.key"))
    done = await gleaner("device", "--config", config, "--state-dir", tmp_path, "--log-level", "warning")
    assert done.code == 1
    assert (
        "none.key: expected a certificate and its own unencrypted key in PEM, got No such file"
        in done.sentence
    )


async def test_a_refused_service_logs_the_cause_and_retries(edge, tmp_path):
    """`gleaner device` with a certificate of another site warns once with the cause and retries."""
    tls = issue(edge.folder, foreign(), "foreign-device")
    cause = "our certificate is not signed by the CA of that port"
    words = (
        "--broker",
        f"127.0.0.1:{edge.port}",
        "--ca",
        tls.ca,
        "--cert",
        tls.certificate,
        "--key",
        tls.key,
    )
    process = await start("device", *words, "--state-dir", tmp_path, "--log-level", "debug")
    lines: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        # A connection can also end before the reason arrives: that is another one, logged once too.
        while sum("bus.disconnected" in line and cause in line for line in lines) < 2:
            lines.append((await process.stderr.readline()).decode())
            assert lines[-1], lines
        process.terminate()
        lines += (await process.stderr.read()).decode().splitlines()
        await process.wait()
    first, second, *_ = (line for line in lines if "bus.disconnected" in line and cause in line)
    assert '"level": "warning"' in first
    assert '"level": "debug"' in second
    assert not [line for line in lines if "Traceback" in line]
