"""Broker processes: locating, configuring and bridging them."""

import asyncio
import subprocess
import sys

import pytest

from bus.broker.locate import BrokerError, Mosquitto, find_mosquitto
from bus.broker.mosquitto_conf import Bridge, configuration, downlink_filters, uplink_filters
from bus.broker.process import BrokerProcess, free_port, local_broker
from bus.config import Broker, ConfigError
from bus.mqtt.client import Bus, transient_client_id
from cli.main import main
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.errors import TransientError
from schemas.messages import Event, Policy, Receipt
from schemas.topics import EVENT, POLICY, RECEIPT, STATUS
from tests.conftest import DEADLINE_S, ROOT, eventually, running
from tests.sites import Client, wait_until


def test_g3_limits_are_configured(tmp_path):
    """G3: the queue of each client and the total memory are limited in bytes."""
    text = configuration(1883, tmp_path)
    assert "max_queued_messages 1000000\n" in text
    assert f"message_size_limit {MAX_PAYLOAD_BYTES}\n" in text
    assert "max_queued_bytes " in text
    assert "memory_limit " in text


def test_g5_without_access_rules_it_listens_only_on_loopback(tmp_path):
    """G5: an anonymous broker is reachable only from this machine."""
    text = configuration(1883, tmp_path)
    assert "allow_anonymous true" in text
    assert "listener 1883 127.0.0.1" in text


@pytest.mark.parametrize("name", ["a b", "100% #1?", "käfer", "-rf"])
def test_a_broker_runs_in_a_folder_of_any_name(tmp_path, mosquitto, name):
    """Mosquitto reads its paths as they are."""
    broker = BrokerProcess(tmp_path / name, program=mosquitto)
    broker.start()
    broker.stop()
    assert (tmp_path / name / "mosquitto.db").exists()


@pytest.mark.parametrize("name", ["a\nallow_anonymous true", "a\rb", "caf\udce9", "\x1b"])
def test_a_path_that_mosquitto_cannot_read_is_an_error(tmp_path, name):
    """A line break would begin another setting; mosquitto refuses what is not UTF-8."""
    with pytest.raises(ConfigError, match="mosquitto cannot read"):
        configuration(1883, tmp_path / name)


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "192.168.1.5", "edge-1.lan"])
def test_g5_an_anonymous_broker_on_other_addresses_is_an_error(tmp_path, address):
    """G5: without access rules, an address that other machines can reach raises ConfigError."""
    with pytest.raises(ConfigError, match="only on a loopback address"):
        configuration(1883, tmp_path, address=address)


def test_g5_the_command_takes_no_address(capsys):
    """G5: `gleaner broker` has no option for an address."""
    with pytest.raises(SystemExit):
        main(["broker", "--address", "0.0.0.0"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_an_oversized_message_does_not_end_the_connection(broker):
    """The broker drops a message above its limit and delivers the next one."""
    with Client(broker.port, None) as sender, Client(broker.port, None) as reader:
        reader.subscribe("#")
        sender.publish("large", payload="x" * (MAX_PAYLOAD_BYTES + 1))
        sender.publish("small", payload="here")
        wait_until(lambda: reader.got("here"))
        assert [topic for topic, _ in reader.received] == ["small"]


def test_a_broker_that_cannot_start_is_an_error_with_its_log(tmp_path):
    """BrokerError quotes the last lines of mosquitto's log."""
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(BrokerError, match="out of luck"):
        BrokerProcess(tmp_path / "broker", program=Mosquitto(program)).start()


def test_a_port_in_use_is_an_error(broker, tmp_path):
    """Starting a second broker on a port raises an error: it is in use."""
    with pytest.raises(TransientError, match="in use"), local_broker(tmp_path / "second", port=broker.port):
        pass


def test_a_broker_is_not_mistaken_for_another_program_on_its_port(broker, tmp_path):
    """Starting on a port in use fails, although something accepts connections there."""
    with pytest.raises(BrokerError, match=f"port {broker.port} is in use"):
        BrokerProcess(tmp_path / "second", port=broker.port).start()


def test_a_port_is_reserved_until_its_process_ends():
    """Another process cannot reserve the same port, even though nothing listens on it."""
    port = free_port(count=2)
    script = (
        "import bus.broker.process as process\n"
        f"ports = iter(range({port}, {port + 100}))\n"
        "process.random.choice = lambda _: next(ports)\n"
        "print(process.free_port())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= port + 2


def test_debians_package_runs_without_being_installed(tmp_path, monkeypatch, mosquitto):
    """Without an installed mosquitto, Debian's package is unpacked into the cache and runs from there."""
    monkeypatch.setattr("shutil.which", _only("apt-get", "dpkg-deb"))
    fetched = find_mosquitto(tmp_path)
    assert fetched.binary.is_relative_to(tmp_path)
    done = subprocess.run([fetched.binary, "-h"], env=fetched.environment(), capture_output=True, check=False)
    assert b"mosquitto version 2." in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mosquitto"]


def test_without_apt_the_error_says_what_to_install(tmp_path, monkeypatch):
    """If the package cannot be downloaded, the error names the command to install it."""
    monkeypatch.setattr("shutil.which", _only())
    with pytest.raises(BrokerError, match="sudo apt install mosquitto"):
        find_mosquitto(tmp_path)


def _only(*installed: str):
    return lambda name, **_: f"/usr/bin/{name}" if name in installed else None


async def test_the_bridge_forwards_the_topics_of_the_contract(tmp_path, mosquitto, broker, address):
    """Samples, labels, status and events go up; receipts, policies, releases and commands come down."""
    node = "edge-1"
    bridge = Bridge(node, "127.0.0.1", broker.port)
    local = BrokerProcess(tmp_path / "edge", program=mosquitto, bridge=bridge)
    local.start()
    try:
        cloud, edge = (
            Bus(address, transient_client_id("cloud")),
            Bus(Broker(port=local.port), transient_client_id("edge")),
        )
        up, down = cloud.subscribe_raw("gleaner/#"), edge.subscribe_raw("gleaner/#")
        async with running(cloud, edge):
            for topic in map(concrete, uplink_filters(node)):
                await edge.publish_bytes(topic, b"{}")
                await arrives(up, topic, edge, b"{}")
            for topic in map(concrete, downlink_filters(node)):
                await cloud.publish_bytes(topic, b"{}")
                await arrives(down, topic, cloud, b"{}")
            await edge.publish_bytes(STATUS.name(node=node, name="pi-1"), b"{}")
            await edge.publish_bytes(EVENT.name(node=node, name="edge"), b"last")
            received = []
            async with asyncio.timeout(DEADLINE_S):
                while not received or received[-1].payload != b"last":
                    received.append(await up.get())
            statuses = {message.topic for message in received if "/status/" in message.topic}
            assert "pi-1" not in {topic.rsplit("/", 1)[-1] for topic in statuses}
    finally:
        local.stop()


def concrete(topic_filter: str) -> str:
    return topic_filter.replace("+", "pi-1")


async def arrives(received, topic: str, sender: Bus, payload: bytes) -> None:
    """Wait for a message on the other side; publish it again every second, until the bridge has connected."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with asyncio.timeout(1):
                    while (await received.get()).topic != topic:
                        pass
                    return
            except TimeoutError:
                await sender.publish_bytes(topic, payload)


async def test_the_bridge_keeps_the_retain_flag(tmp_path, mosquitto, broker, address):
    """A policy published in the cloud is retained at the edge, whether the bridge was connected or not."""
    cloud = Bus(address, transient_client_id("cloud"))
    local = BrokerProcess(
        tmp_path / "edge", program=mosquitto, bridge=Bridge("edge-1", "127.0.0.1", broker.port)
    )
    async with running(cloud):
        for issued in (1, 2):
            await cloud.publish(POLICY, Policy(node="edge-1", issued_at_ms=issued), node="edge-1")
            if issued == 1:
                local.start()
            try:
                await eventually_retained(Broker(port=local.port), issued)
            except TimeoutError:
                local.stop()
                raise
    local.stop()


async def eventually_retained(address: Broker, issued: int) -> None:
    """Wait until a new subscriber receives this policy as a retained one."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            bus = Bus(address, transient_client_id("late"))
            policies, markers = bus.subscribe(POLICY), bus.subscribe(EVENT)
            async with running(bus):
                marker = Event(node="n", name="late", event="test.happened", at_ms=0)
                await bus.publish(EVENT, marker, node="n", name="late")
                await markers.queue.get()  # retained messages were delivered before it
            if not policies.queue.empty():
                policy = policies.queue.get_nowait()
                if policy.retained and policy.message().issued_at_ms == issued:
                    return


async def test_g2_the_bridge_reconnects_to_a_killed_cloud_broker(tmp_path, mosquitto, broker, address):
    """G2: after the cloud's broker was killed and restarted, the bridge forwards messages again."""
    bridge = Bridge("edge-1", "127.0.0.1", broker.port)
    local = BrokerProcess(tmp_path / "edge", program=mosquitto, bridge=bridge)
    local.start()
    try:
        edge, cloud = (
            Bus(Broker(port=local.port), transient_client_id("edge")),
            Bus(address, transient_client_id("cloud")),
        )
        receipts = edge.subscribe(RECEIPT)
        receipt = Receipt(photo_id="0" * 32, node="edge-1", status="stored", received_at_ms=1)
        async with running(edge, cloud):
            for _ in range(2):
                number = await cloud.connected()
                await until_received(cloud, receipt, receipts)
                broker.kill()
                broker.start()
                async with asyncio.timeout(DEADLINE_S):
                    await cloud.connected(number)
            await until_received(cloud, receipt, receipts)
    finally:
        local.stop()


async def until_received(cloud: Bus, receipt: Receipt, receipts) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while receipts.queue.empty():
            await cloud.publish(RECEIPT, receipt, node="edge-1")
            try:
                await eventually(lambda: not receipts.queue.empty(), within_s=1)
            except AssertionError:
                continue
        while not receipts.queue.empty():
            receipts.queue.get_nowait().ack()
