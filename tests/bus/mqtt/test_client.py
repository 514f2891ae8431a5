import asyncio

import aiomqtt
import pytest

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import Presence
from schemas.messages import Event
from schemas.topics import EVENT, STATUS
from tests.conftest import eventually, running


def event(number: int) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


async def test_a_typed_message_arrives(address):
    """What is published is what a subscriber gets."""
    bus = Bus(address, transient_client_id("one"))
    events = bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(15):
        await bus.publish(EVENT, event(7), node="n", name="e")
        assert (await events.queue.get()).message() == event(7)


async def test_what_is_not_acknowledged_comes_again(address):
    """The broker keeps a delivery until `ack`: the next connection gets just the others."""
    for expected in ([0, 1, 2], [0, 2]):
        bus = Bus(address, "durable", durable=True)
        events = bus.subscribe(EVENT)
        async with running(bus), asyncio.timeout(15):
            if len(expected) == 3:
                for number in range(3):
                    await bus.publish(EVENT, event(number), node="n", name="e")
            got = [await events.queue.get() for _ in expected]
            assert [delivery.message().at_ms for delivery in got] == expected
            if len(expected) == 3:
                got[1].ack()
                await bus.publish(EVENT, event(9), node="other", name="e")  # its PUBACK follows our ack
                (await events.queue.get()).ack()


async def test_the_same_bus_outlives_a_killed_broker(broker, address):
    """Broker killed and restarted on its port: the same object connects again, subscription and all."""
    counters = Counters()
    bus = Bus(address, transient_client_id("survivor"), presence=Presence("n", "e"), counters=counters)
    events = bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(30):
        number = await bus.connected()
        broker.kill()
        await eventually(lambda: counters["bus.disconnected"] >= 1)
        with pytest.raises(BrokerConnectionError):
            await bus.publish(EVENT, event(1), node="n", name="e")
        broker.start()
        assert await bus.connected(number) > number
        await bus.publish(EVENT, event(5), node="n", name="e")
        assert (await events.queue.get()).message().at_ms == 5


async def test_birth_and_farewell_are_retained(address):
    """A component is `online` while it runs and says `offline` when it leaves."""
    watcher = Bus(address, transient_client_id("watcher"))
    statuses = watcher.subscribe(STATUS, node="n", name="e")
    async with running(watcher), asyncio.timeout(15):
        bus = Bus(address, transient_client_id("present"), presence=Presence("n", "e"))
        async with running(bus):
            assert (await statuses.queue.get()).message().state == "online"
        assert (await statuses.queue.get()).message().state == "offline"


async def test_publishing_without_a_connection_says_so(address):
    """A publish before the connection is an error at once, and no wait."""
    with pytest.raises(BrokerConnectionError):
        await Bus(address, transient_client_id("early")).publish(EVENT, event(1), node="n", name="e")


async def test_a_connection_ends_when_told_at_any_moment(address):
    """Cancelled a tenth of a millisecond later each time, `run` ends: no moment loses the cancellation."""
    for moment in range(200):
        bus = Bus(address, f"brief-{moment}", presence=Presence("n", "e"))
        connection = asyncio.create_task(bus.run())
        await asyncio.wait({connection}, timeout=moment / 10_000)
        connection.cancel()
        ended, _ = await asyncio.wait({connection}, timeout=20)
        assert ended, f"not after {moment / 10} ms"
        assert connection.cancelled()


def test_the_pinned_libraries_have_what_is_reached_into():
    """bus/mqtt/client.py uses private parts of aiomqtt's paho client; a version without these fails here."""

    async def client() -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1")

    paho = asyncio.run(client())._client
    assert callable(paho.manual_ack_set)
    assert callable(paho.ack)
    assert callable(paho._sock_close)


async def test_nothing_is_stuck_behind_a_full_queue(address):
    """What finds its queue full ends the connection, and the next one brings it again."""
    bus, other = Bus(address, "durable", durable=True), Bus(address, transient_client_id("other"))
    events = bus.subscribe(EVENT, queue=2)
    async with running(bus, other), asyncio.timeout(30):
        for number in range(5):
            await other.publish(EVENT, event(number), node="n", name="e")
        await eventually(lambda: bus.counters["bus.overflowed"] >= 1)
        seen = set()
        while len(seen) < 5:
            delivery = await events.queue.get()
            seen.add(delivery.message().at_ms)
            delivery.ack()
        assert bus.counters["bus.disconnected"] >= 1
