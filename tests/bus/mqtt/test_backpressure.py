"""A full queue stops reading; it never ends a connection in a way that brings the same messages again."""

import asyncio
from contextlib import suppress

import pytest

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection.connection import Incoming
from bus.mqtt.errors import BrokerConnectionError
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import RawSubscriptions
from schemas.messages import Event
from schemas.topics import EVENT
from tests.conftest import DEADLINE_S, eventually, running

PLACE = {"node": "n", "name": "e"}


def event(number: int) -> Event:
    return Event(event="test.happened", at_ms=number, **PLACE)


async def queue_up(address, count: int, client_id: str = "far") -> None:
    """Let the broker keep messages for a durable client that is away."""
    absent = Bus(address, client_id, durable=True)
    absent.subscribe(EVENT)
    async with running(absent):
        pass
    other = Bus(address, transient_client_id("other"))
    async with running(other):
        for start in range(0, count, 100):
            await asyncio.gather(
                *(other.publish(EVENT, event(n), **PLACE) for n in range(start, start + 100))
            )


async def test_g3_thousands_of_queued_messages_drain_on_one_connection(address):
    """G3: three times as many messages as the queue holds arrive once each, without a reconnect."""
    await queue_up(address, 3000)
    bus = Bus(address, "far", durable=True, presence=Presence("n", "far"), counters=Counters())
    events = bus.subscribe(EVENT, queue=1024)
    seen = []
    async with running(bus), asyncio.timeout(DEADLINE_S):
        while len(seen) < 3000:
            assert events.queue.qsize() < 1100
            for delivery in await events.next_batch(64):
                seen.append(delivery.message().at_ms)
                delivery.ack()
            await asyncio.sleep(0)
        assert sorted(seen) == list(range(3000))
        assert bus.counters["bus.disconnected"] == 0


async def test_g3_a_session_is_resumed_without_reading_what_does_not_fit(address):
    """G3: whoever takes messages once connected gets all that wait in a session, on each connection to it.

    The broker sends them before it answers the subscription.
    """
    await queue_up(address, 3000)
    seen = set()
    for most in (100, 3000):
        bus = Bus(address, "far", durable=True, counters=Counters())
        events = bus.subscribe(EVENT, queue=200)
        async with running(bus), asyncio.timeout(DEADLINE_S):
            while len(seen) < most:
                for delivery in await events.next_batch(64):
                    seen.add(delivery.message().at_ms)
                    delivery.ack()
                await asyncio.sleep(0)
        assert bus.counters["bus.overflowed"] == 0


async def test_g3_messages_that_do_not_fit_beside_a_publish_come_again(address, monkeypatch):
    """G3: a consumer that publishes for each message gets all of them, with progress on each connection."""
    monkeypatch.setattr("bus.mqtt.subscription._READ_AHEAD", 0)
    monkeypatch.setattr("bus.mqtt.client._CHECK_S", 0.05)
    await queue_up(address, 600)
    bus = Bus(address, "far", durable=True, counters=Counters())
    events = bus.subscribe(EVENT, queue=50)
    seen: set[int] = set()
    async with running(bus), asyncio.timeout(DEADLINE_S):
        while len(seen) < 600:
            delivery = await events.queue.get()
            await bus.connected()
            with suppress(BrokerConnectionError):  # the message does not fit; it is redelivered
                await bus.publish_bytes("gleaner/v1/other", b"x")
                seen.add(delivery.message().at_ms)
                delivery.ack()
        assert bus.counters["bus.flapping"] == 0


async def test_messages_that_nobody_takes_are_reported(address, monkeypatch):
    """A subscription whose messages nobody takes makes the component degraded, until one is taken."""
    monkeypatch.setattr("bus.mqtt.backpressure.STALLED_S", 0.1)
    monkeypatch.setattr("bus.mqtt.client._CHECK_S", 0.02)
    await queue_up(address, 100)
    presence = Presence("n", "far")
    bus = Bus(address, "far", durable=True, presence=presence, counters=Counters())
    events = bus.subscribe(EVENT, queue=10)
    async with running(bus):
        await eventually(lambda: "none was taken" in (presence.degraded_reason() or ""))
        await events.queue.get()
        await eventually(lambda: presence.degraded_reason() is None)


@pytest.mark.parametrize("queue", [1, 2, 1024])
async def test_a_client_ends_while_it_does_not_read(address, queue):
    """Stopping a client whose queue is full takes no longer than its last Status."""
    await queue_up(address, 100)
    bus = Bus(address, "far", durable=True, presence=Presence("n", "far"), counters=Counters())
    bus.subscribe(EVENT, queue=queue)
    async with asyncio.timeout(DEADLINE_S), running(bus):
        await bus.connected()


async def test_g3_a_queue_is_full_by_its_bytes_too(address, monkeypatch):
    """G3: a few large messages stop the reading as many small ones do, and all arrive on one connection."""
    for module in ("subscription", "backpressure"):
        monkeypatch.setattr(f"bus.mqtt.{module}.QUEUED_BYTES", 20_000)
    await queue_up(address, 600)
    bus = Bus(address, "far", durable=True, presence=Presence("n", "far"), counters=Counters())
    events = bus.subscribe(EVENT, queue=1024)
    seen = []
    async with running(bus), asyncio.timeout(DEADLINE_S):
        while len(seen) < 600:
            # Until the connection is proven, nothing stops the reading.
            assert events.queue.size_bytes < 40_100
            for delivery in await events.next_batch(16):
                seen.append(delivery.message().at_ms)
                delivery.ack()
            await asyncio.sleep(0)
        assert sorted(seen) == list(range(600))
        assert (events.queue.size_bytes, bus.counters["bus.disconnected"]) == (0, 0)


@pytest.mark.parametrize(("optional", "kept"), [(False, [0, 1, 2]), (True, [7, 8, 9])])
def test_g3_raw_messages_are_bounded_by_their_bytes_too(monkeypatch, optional, kept):
    """G3: beyond that a message is dropped, or replaces the oldest of an optional filter."""
    monkeypatch.setattr("bus.mqtt.subscription.QUEUED_BYTES", 250)
    raw = RawSubscriptions(Counters())
    queue = raw.add("a/#", 1024, optional=optional)
    for number in range(10):
        raw.put(Incoming("a/b", bytes([number]) * 400, retained=False, ack=None))
    assert [queue.get_nowait().payload[0] for _ in range(queue.qsize())] == kept
