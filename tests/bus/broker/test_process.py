"""Broker processes: found, configured, bridged."""

import asyncio
import subprocess

import pytest

from bus.broker.locate import BrokerError, Mosquitto, find_mosquitto
from bus.broker.mosquitto_conf import Bridge, configuration, downlink_filters, uplink_filters
from bus.broker.process import BrokerProcess, local_broker
from bus.config import Broker, ConfigError
from bus.mqtt.client import Bus, transient_client_id
from cli.main import main
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.errors import TransientError
from schemas.messages import Policy, Receipt
from schemas.topics import EVENT, POLICY, RECEIPT, STATUS
from tests.conftest import eventually, running
from tests.sites import Client, wait_until


def test_bounds_are_stated(tmp_path):
    """G3: bytes bound every client's queue and the whole memory, long before any count does."""
    text = configuration(1883, tmp_path)
    assert "max_queued_messages 1000000\n" in text
    assert f"message_size_limit {MAX_PAYLOAD_BYTES}\n" in text
    assert "max_queued_bytes " in text
    assert "memory_limit " in text


def test_without_access_rules_it_listens_on_loopback_alone(tmp_path):
    """G5: the anonymous broker is for this machine only."""
    text = configuration(1883, tmp_path)
    assert "allow_anonymous true" in text
    assert "listener 1883 127.0.0.1" in text


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "192.168.1.5", "edge-1.lan"])
def test_g5_nobody_anonymous_is_let_in_from_elsewhere(tmp_path, address):
    """Without access rules there is no broker that another machine can reach."""
    with pytest.raises(ConfigError, match="loopback"):
        configuration(1883, tmp_path, address=address)


def test_g5_the_command_has_no_way_to_listen_elsewhere(capsys):
    """`gleaner broker` takes no address at all."""
    with pytest.raises(SystemExit):
        main(["broker", "--address", "0.0.0.0"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_message_that_is_too_large_costs_no_connection(broker):
    """The broker passes over what is larger than its limit; what comes behind it arrives."""
    with Client(broker.port, None) as sender, Client(broker.port, None) as reader:
        reader.subscribe("#")
        sender.publish("large", payload="x" * (MAX_PAYLOAD_BYTES + 1))
        sender.publish("small", payload="here")
        wait_until(lambda: reader.got("here"))
        assert [topic for topic, _ in reader.received] == ["small"]


def test_a_broker_that_cannot_start_says_why(tmp_path):
    """The error quotes the broker's own words."""
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(BrokerError, match="out of luck"):
        BrokerProcess(tmp_path / "broker", program=Mosquitto(program)).start()


def test_a_taken_port_is_said_in_words(broker, tmp_path):
    """Whoever starts a second broker on a port learns that it is in use."""
    with pytest.raises(TransientError, match="in use"), local_broker(tmp_path / "second", port=broker.port):
        pass


def test_debians_package_runs_without_being_installed(tmp_path, monkeypatch, mosquitto):
    """Without mosquitto on the PATH, the package is unpacked below the cache, complete or not at all."""
    monkeypatch.setattr("shutil.which", _only("apt-get", "dpkg-deb"))
    fetched = find_mosquitto(tmp_path)
    assert fetched.binary.is_relative_to(tmp_path)
    told = subprocess.run([fetched.binary, "-h"], env=fetched.environment(), capture_output=True, check=False)
    assert b"mosquitto version 2." in told.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mosquitto"]


def test_without_apt_it_says_what_to_install(tmp_path, monkeypatch):
    """Where nothing can be fetched, one line names the package."""
    monkeypatch.setattr("shutil.which", _only())
    with pytest.raises(BrokerError, match="sudo apt install mosquitto"):
        find_mosquitto(tmp_path)


def _only(*there: str):
    return lambda name, **_: f"/usr/bin/{name}" if name in there else None


async def test_the_bridge_carries_what_the_contract_says(tmp_path, mosquitto, broker, address):
    """Samples, labels, status and events go up; receipts, policies, releases and commands come down."""
    node = "edge-1"
    link = Bridge(node, "127.0.0.1", broker.port)
    local = BrokerProcess(tmp_path / "edge", program=mosquitto, bridge=link)
    local.start()
    try:
        cloud, edge = (
            Bus(address, transient_client_id("cloud")),
            Bus(Broker(port=local.port), transient_client_id("edge")),
        )
        up, down = cloud.subscribe_raw("gleaner/#"), edge.subscribe_raw("gleaner/#")
        async with running(cloud, edge):
            for topic in (concrete(chosen) for chosen in uplink_filters(node)):
                await edge.publish_bytes(topic, b"{}")
                await arrives(up, topic, edge, b"{}")
            for topic in (concrete(chosen) for chosen in downlink_filters(node)):
                await cloud.publish_bytes(topic, b"{}")
                await arrives(down, topic, cloud, b"{}")
            await edge.publish_bytes(STATUS.name(node=node, name="pi-1"), b"{}")
            await edge.publish_bytes(EVENT.name(node=node, name="edge"), b"last")
            seen = []
            async with asyncio.timeout(15):
                while not seen or seen[-1].payload != b"last":
                    seen.append(await up.get())
            assert "pi-1" not in {told.topic.rsplit("/", 1)[-1] for told in seen if "/status/" in told.topic}
    finally:
        local.stop()


def concrete(chosen: str) -> str:
    return chosen.replace("+", "pi-1")


async def arrives(seen, topic: str, sender: Bus, payload: bytes) -> None:
    """Wait for a topic on the far side; a bridge that is just connecting gets it again."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with asyncio.timeout(1):
                    while (await seen.get()).topic != topic:
                        pass
                    return
            except TimeoutError:
                await sender.publish_bytes(topic, payload)


async def test_what_is_retained_in_the_cloud_is_retained_at_the_edge(tmp_path, mosquitto, broker, address):
    """A policy reaches an edge that comes later, also when the cloud changed it while the link was up."""
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
    """Connect as a newcomer until the retained policy is that one."""
    async with asyncio.timeout(30):
        while True:
            bus = Bus(address, transient_client_id("late"))
            policies = bus.subscribe(POLICY)
            async with running(bus):
                try:
                    async with asyncio.timeout(0.5):
                        delivery = await policies.queue.get()
                except TimeoutError:
                    continue
                if delivery.retained and delivery.message().issued_at_ms == issued:
                    return


async def test_g2_a_killed_cloud_broker_comes_back_to_its_bridge(tmp_path, mosquitto, broker, address):
    """The edge's broker takes up the link again by itself after the cloud's was killed."""
    link = Bridge("edge-1", "127.0.0.1", broker.port)
    local = BrokerProcess(tmp_path / "edge", program=mosquitto, bridge=link)
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
                async with asyncio.timeout(30):
                    await cloud.connected(number)
            await until_received(cloud, receipt, receipts)
    finally:
        local.stop()


async def until_received(cloud: Bus, receipt: Receipt, receipts) -> None:
    async with asyncio.timeout(40):
        while receipts.queue.empty():
            await cloud.publish(RECEIPT, receipt, node="edge-1")
            try:
                await eventually(lambda: not receipts.queue.empty(), within_s=1)
            except AssertionError:
                continue
        while not receipts.queue.empty():
            receipts.queue.get_nowait().ack()
