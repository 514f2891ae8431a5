"""Who gets in: certificates, both ports of a broker, client ids, and what a refused one is told."""

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

from bus.broker.process import free_port
from bus.config import Broker, ConfigError, Tls
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.mqtt.tls import context
from bus.security import certificates
from bus.security.certificates import Authority
from tests.cli.conftest import gleaner, start
from tests.conftest import ROOT, eventually, running
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
    """A provisioned edge node with its broker running: two devices, a handler, an operator."""

    site: Path
    folder: Path
    port: int
    broker: subprocess.Popen[bytes]

    def device(self, name: str) -> Tls:
        return files(self.site / "devices" / name, "device")

    @property
    def operator(self) -> Tls:
        return files(self.site / "operator", "operator")


@pytest.fixture(scope="module")
def edge(tmp_path_factory, mosquitto) -> Iterator[Edge]:
    site, port = tmp_path_factory.mktemp("site"), free_ports()
    node = ("--edge", "edge-1", "--edge-host", f"127.0.0.1:{port}", "--devices", "pi-1,pi-2")
    provision(site, "--cloud", f"127.0.0.1:{free_port()}", *node)
    folder = site / "edges" / "edge-1"
    with broker_of(folder, port, mosquitto) as broker:
        yield Edge(site, folder, port, broker)


def foreign() -> Authority:
    """Return an authority that the site knows nothing of."""
    key = certificates.new_key()
    return Authority(certificates.authority_certificate(key, "foreign", days=2), key)


def strangers(edge: Edge) -> dict[str, tuple[int, Tls | None]]:
    """Return who must not get in, and by which port they try."""
    here = edge.folder
    long_ago = datetime.now(UTC) - timedelta(days=30)
    return {
        "expired": (edge.port, issue(here, authority(edge.site), "late", now=long_ago)),
        "foreign authority": (edge.port, issue(here, foreign(), PI_1)),
        "no certificate": (edge.port, Tls(ca=str(here / "ca.pem"))),
        "plain TCP": (edge.port, None),
        "no certificate at the other port": (edge.port + 1, Tls(ca=str(here / "ca.pem"))),
        "plain TCP at the other port": (edge.port + 1, None),
        "a broker's own certificate": (edge.port, files(here, "broker")),
        "a device at the operator's port": (edge.port + 1, edge.device(PI_1)),
        "the operator at the devices' port": (edge.port, edge.operator),
    }


def test_g5_who_proves_no_identity_is_refused(edge):
    """No certificate, a wrong one, or none of that port: no connection."""
    refused = {name: not Client(port, tls).connect() for name, (port, tls) in strangers(edge).items()}
    assert refused == dict.fromkeys(refused, True)
    with Client(edge.port, edge.device(PI_1)), Client(edge.port + 1, edge.operator):
        pass  # these get in, so it is the certificate that decides


@pytest.mark.parametrize("port", [0, 1], ids=["devices", "operator"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_g5_old_tls_is_refused(edge, port):
    """The broker refuses TLS 1.1, and takes 1.2 and 1.3."""
    tls = (edge.device(PI_1), edge.operator)[port]
    for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = client_context(tls)
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = version
        client.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", edge.port + port), timeout=20) as plain:
            if version == ssl.TLSVersion.TLSv1_1:
                with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                    client.wrap_socket(plain, server_hostname="127.0.0.1")
            else:
                client.wrap_socket(plain, server_hostname="127.0.0.1").close()


@pytest.mark.parametrize("durable", [False, True], ids=["clean", "durable"])
def test_g5_a_claimed_client_id_is_worth_nothing(edge, durable):
    """Whoever connects as another throws nobody out, takes over no session, and gets nobody's messages."""
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


def test_g5_what_waits_for_a_device_waits_for_nobody_else(edge):
    """What the broker keeps for a device that is away is not given to another that claims its id."""
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


def test_g5_rights_come_and_go_while_the_broker_runs(edge):
    """A device may write as soon as it is provisioned, and no more once it is removed; no one reconnects."""
    photo = "gleaner/v1/photo/edge-1/pi-3"
    with Client(edge.port + 1, edge.operator) as operator:
        operator.subscribe("gleaner/v1/photo/#")
        provision(edge.site, "--edge", "edge-1", "--devices", "pi-3")
        with Client(edge.port, edge.device("edge-1.pi-3")) as device:
            edge.broker.send_signal(signal.SIGHUP)
            wait_until(lambda: device.publish(photo, payload="mine") or operator.got("mine") == {photo})
            provision(edge.site, "--remove", "edge-1.pi-3")
            edge.broker.send_signal(signal.SIGHUP)
            wait_until(lambda: gone(device, operator, photo))


def gone(device: Client, operator: Client, topic: str) -> bool:
    """Tell whether what a device publishes no longer reaches the operator, who then publishes there."""
    before = len(operator.received)
    device.publish(topic, payload="again")
    operator.publish(topic, payload="end")
    wait_until(lambda: (topic, b"end") in operator.received[before:])
    return (topic, b"again") not in operator.received[before:]


def test_a_refused_message_costs_its_sender_no_connection(edge):
    """The broker passes over what it refuses; what comes behind it arrives."""
    with Client(edge.port, edge.device(PI_1)) as sender, Client(edge.port + 1, edge.operator) as operator:
        operator.subscribe("gleaner/#")
        topics = ("gleaner/v1/photo/edge-1/pi-2", "gleaner/v1/photo/edge-1/pi-1")
        sender.publish(*topics, payload="photo")
        wait_until(lambda: operator.got("photo") == {topics[1]})
        assert not sender.disconnected.is_set()


async def test_a_tool_opens_several_connections(edge):
    """The operator's port leaves the client ids alone: two tools run side by side."""
    broker = Broker(port=edge.port + 1, tls=edge.operator)
    one, two = Bus(broker, transient_client_id("one")), Bus(broker, transient_client_id("two"))
    async with running(one, two):
        assert one.counters["bus.disconnected"] == two.counters["bus.disconnected"] == 0


REFUSALS = {
    "expired": "our certificate has expired",
    "foreign authority": "the authority of that port did not sign our certificate",
    "no certificate": "demands a certificate",
    "plain TCP": "TLS on one side alone?",
    "a broker's own certificate": "our certificate is not for clients",
    "a device at the operator's port": "the authority of that port did not sign our certificate",
}


async def trouble(bus: Bus, attempts: int = 1) -> str:
    """Return why a connection does not come about, after so many attempts."""
    connection = asyncio.create_task(bus.run())
    await eventually(lambda: bus.counters["bus.disconnected"] >= attempts)
    connection.cancel()
    await asyncio.wait({connection})
    return bus.last_error


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_a_refused_connection_says_why_at_once(edge, name):
    """The first attempt ends with a sentence that names the cause, and the next follows."""
    port, tls = strangers(edge)[name]
    bus = Bus(Broker(port=port, tls=tls), "stranger", presence=Presence("edge-1", "pi-1"))
    assert REFUSALS[name] in await trouble(bus, attempts=2)


# paho leaves closing the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_false_broker_is_refused(edge):
    """A client talks to nobody whose certificate its authority did not sign."""
    (edge.folder / "foreign.pem").write_bytes(foreign().certificate)
    tls = msgspec.structs.replace(edge.device(PI_1), ca=str(edge.folder / "foreign.pem"))
    bus = Bus(Broker(port=edge.port, tls=tls), "device", presence=Presence("edge-1", "pi-1"))
    assert "does not prove it to be that host" in await trouble(bus)
    gc.collect()


async def test_missing_rights_are_said(edge, monkeypatch):
    """A component that may not write and read its own status says so instead of working in vain."""
    monkeypatch.setattr("bus.mqtt.client._PROBE_S", 0.3)
    bus = Bus(Broker(port=edge.port, tls=edge.device(PI_1)), "d", presence=Presence("edge-1", "pi-2"))
    expected = "nothing on gleaner/v1/status/edge-1/pi-2 (may this client read and write it?)"
    assert await trouble(bus) == expected


@pytest.fixture
def own(tmp_path) -> Tls:
    """Files of a client of its own authority."""
    signer = foreign()
    (tmp_path / "ca.pem").write_bytes(signer.certificate)
    issue(tmp_path, signer, "other")
    return issue(tmp_path, signer, "own")


@pytest.mark.parametrize("name", ["ca.pem", "own.pem", "own.key"])
@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", b"\x00\xff"], ids=["missing", "empty", "text", "bytes"]
)
def test_an_unusable_file_is_one_sentence(own, tmp_path, name, content):
    """A missing or broken file is a ConfigError that names it."""
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        context(own)


def test_the_key_of_another_certificate_is_one_sentence(own, tmp_path):
    """A key that does not belong to the certificate is a ConfigError."""
    with pytest.raises(ConfigError, match="its own"):
        context(msgspec.structs.replace(own, key=str(tmp_path / "other.key")))


_ON_A_TERMINAL = """
import os, sys
os.open(os.ttyname(0), os.O_RDWR)  # a session's first terminal becomes the one that OpenSSL would ask
from bus.config import Tls
from bus.mqtt.tls import context
try:
    context(Tls(ca=sys.argv[1], certificate=sys.argv[2], key=sys.argv[3]))
except Exception as error:
    print(error)
"""


def test_an_encrypted_key_asks_nobody(own, tmp_path):
    """OpenSSL's question for a pass phrase never reaches the terminal, where a service would hang."""
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
            timeout=30,
            check=True,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert b"its own unencrypted key" in done.stdout


async def test_a_service_whose_file_is_missing_ends_with_one_sentence(edge, tmp_path):
    """`gleaner device` with a key that is not there says so and does not start."""
    text = (edge.site / "devices" / PI_1 / "device.toml").read_text()
    config = tmp_path / "device.toml"
    config.write_text(text.replace("device.key", "none.key"))
    done = await gleaner("device", "--config", config, "--state-dir", tmp_path, "--log-level", "warning")
    assert done.code == 1
    assert (
        "none.key: expected a certificate and its own unencrypted key in PEM, got No such file"
        in done.sentence
    )


async def test_a_service_that_is_refused_says_so_and_tries_on(edge, tmp_path):
    """`gleaner device` with a certificate of another site warns once, in words, and goes on until stopped."""
    tls = issue(edge.folder, foreign(), "foreign-device")
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
    said: list[str] = []
    async with asyncio.timeout(60):
        while sum("bus.disconnected" in line for line in said) < 2:
            said.append((await process.stderr.readline()).decode())
            assert said[-1], said
        process.terminate()
        said += (await process.stderr.read()).decode().splitlines()
        await process.wait()
    first, second, *_ = (line for line in said if "bus.disconnected" in line)
    assert "the authority of that port did not sign our certificate" in first
    assert '"level": "warning"' in first
    assert '"level": "debug"' in second
    assert not [line for line in said if "Traceback" in line]
