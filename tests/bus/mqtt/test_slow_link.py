"""A slow link carries large messages; a dead one is noticed (guarantee G1: no stuck state)."""

import asyncio
import socket
import time

import pytest

from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.errors import BrokerConnectionError
from bus.mqtt.presence import Presence
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from schemas.topics import PHOTO
from tests.conftest import DEADLINE_S, eventually, running
from tests.proxy import proxy_to

TOPIC = PHOTO.name(node="n", device="d")
RESEND = OutboxLimits(resend_first_s=0.2, resend_cap_s=0.5)


@pytest.fixture
async def received(address):
    """Sizes of the payloads that the broker has received on the topic."""
    sizes: list[int] = []
    reader = Bus(address, transient_client_id("reader"))
    queue = reader.subscribe_raw(TOPIC)

    async def take() -> None:
        while True:
            sizes.append(len((await queue.get()).payload))

    async with running(reader):
        taking = asyncio.create_task(take())
        yield sizes
        taking.cancel()


async def test_g1_photos_that_take_longer_than_any_timeout_arrive_once(
    broker, received, tmp_path, monkeypatch
):
    """G1: photos that each need twice the keep-alive on a slow link arrive, on one connection, sent once."""
    monkeypatch.setattr("bus.mqtt.presence._WAIT_S", 0.1)
    monkeypatch.setattr("bus.mqtt.connection.progress.SLOWEST_BYTES_PER_S", 10_000)
    size, rate, count = 40_000, 20_000, 3
    async with proxy_to(broker.port) as proxy:
        far = Broker(port=proxy.port, keepalive_s=1)
        presence = Presence("n", "d", every_s=0.2)
        bus = Bus(far, "far", presence=presence, counters=Counters())
        async with running(bus), Database(tmp_path / "o.db", {"outbox": Outbox.MIGRATIONS}) as database:
            outbox = Outbox(database, RESEND, bus.counters, name="photo")
            sending = asyncio.create_task(outbox.run(bus.publish_bytes, bus.connected))
            await bus.connected()
            proxy.bytes_per_s = rate
            before, started = proxy.forwarded_bytes, time.monotonic()
            for number in range(count):
                await outbox.put(str(number), TOPIC, bytes([number]) * size)
            await eventually(lambda: len(received) >= count)
            took_s = time.monotonic() - started
            sent = proxy.forwarded_bytes - before
            sending.cancel()
            assert received == [size] * count
            assert sent < 1.3 * count * size
            assert took_s > count * size / rate * 0.9, "the link was not slow"
            assert bus.counters["bus.disconnected"] == 0
            proxy.bytes_per_s = None


async def test_what_a_full_socket_does_not_take_is_written_when_it_has_room(address, received):
    """Each of two messages that are many times as large as the socket's buffer arrives whole, in order."""
    bus = Bus(address, transient_client_id("far"))
    async with running(bus), asyncio.timeout(DEADLINE_S):
        await bus.connected()
        assert bus._connection is not None
        bus._connection._paho.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.gather(*(bus.publish_bytes(TOPIC, bytes(size)) for size in (400_000, 300_000)))
        await eventually(lambda: received == [400_000, 300_000])
        assert not bus._connection._socket._waits_for_room


async def test_a_link_without_progress_is_replaced(broker, monkeypatch):
    """If no byte of a publish moves any more, it ends, and the next one works."""
    async with proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port, keepalive_s=1), "far", presence=Presence("n", "d"))
        async with running(bus), asyncio.timeout(DEADLINE_S):
            number = await bus.connected()
            monkeypatch.setattr("bus.mqtt.connection.progress.SLOWEST_BYTES_PER_S", 1e9)
            proxy.go_silent()
            with pytest.raises(BrokerConnectionError, match="did not acknowledge"):
                await bus.publish_bytes(TOPIC, bytes(3_000))
            proxy.resume()
            assert await bus.connected(number) > number
            assert "no byte moved" in bus.last_error


async def test_a_late_status_does_not_end_the_connection(broker, monkeypatch):
    """A Status whose PUBACK comes late is not a failure, and the component continues meanwhile."""
    monkeypatch.setattr("bus.mqtt.presence._WAIT_S", 0.05)
    async with proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port), "far", presence=Presence("n", "d", every_s=0.05))
        async with running(bus), asyncio.timeout(DEADLINE_S):
            proxy.delay_s = 0.3
            for number in range(5):
                await bus.report_degraded("part", str(number))
            await bus.publish_bytes(TOPIC, b"x")
            assert bus.counters["bus.disconnected"] == 0


async def test_g1_publishes_that_wait_for_room_fail_with_their_connection(broker):
    """G1: a publish that waits behind others ends with its connection, or its sender waits forever."""
    async with proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port), "far", presence=Presence("n", "d"))
        async with running(bus):
            proxy.bytes_per_s = 1000
            publishes = [asyncio.create_task(bus.publish_bytes(TOPIC, bytes(200_000))) for _ in range(3)]
            await eventually(lambda: bus._connection is not None and bus._connection.publisher.awaited == 3)
            broker.kill()
            async with asyncio.timeout(DEADLINE_S):
                ended = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(one) for one in ended] == [BrokerConnectionError] * 3
