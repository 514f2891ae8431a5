import asyncio

import aiomqtt
import pytest
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection.connection import BrokerConnectionError
from bus.mqtt.errors import BrokerRefusedError
from bus.mqtt.presence import Presence
from schemas.codec import encode
from schemas.messages import Event
from schemas.topics import EVENT, STATUS
from tests.conftest import DEADLINE_S, eventually, running


def event(number: int) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


async def test_a_typed_message_arrives(address):
    """A subscriber receives a message equal to the published one."""
    bus = Bus(address, transient_client_id("one"))
    events = bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(DEADLINE_S):
        await bus.publish(EVENT, event(7), node="n", name="e")
        assert (await events.queue.get()).message() == event(7)


async def test_unacknowledged_messages_are_redelivered(address):
    """The next connection of a durable client receives exactly the messages without `ack`."""
    for expected in ([0, 1, 2], [0, 2]):
        bus = Bus(address, "durable", durable=True)
        events = bus.subscribe(EVENT)
        async with running(bus), asyncio.timeout(DEADLINE_S):
            if len(expected) == 3:
                for number in range(3):
                    await bus.publish(EVENT, event(number), node="n", name="e")
            got = [await events.queue.get() for _ in expected]
            assert [delivery.message().at_ms for delivery in got] == expected
            if len(expected) == 3:
                got[1].ack()
                await bus.publish(EVENT, event(9), node="other", name="e")  # its PUBACK follows our ack
                (await events.queue.get()).ack()


async def test_the_client_reconnects_to_a_restarted_broker(broker, address):
    """After the broker was killed and restarted, the same Bus works again, with its subscriptions."""
    counters = Counters()
    bus = Bus(address, transient_client_id("survivor"), presence=Presence("n", "e"), counters=counters)
    events = bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(DEADLINE_S):
        number = await bus.connected()
        broker.kill()
        await eventually(lambda: counters["bus.disconnected"] >= 1)
        with pytest.raises(BrokerConnectionError):
            await bus.publish(EVENT, event(1), node="n", name="e")
        broker.start()
        assert await bus.connected(number) > number
        await bus.publish(EVENT, event(5), node="n", name="e")
        assert (await events.queue.get()).message().at_ms == 5


async def test_the_status_is_online_while_running_and_offline_afterwards(address):
    """A component publishes `online` when it connects and `offline` when it is cancelled."""
    watcher = Bus(address, transient_client_id("watcher"))
    statuses = watcher.subscribe(STATUS, node="n", name="e")
    async with running(watcher), asyncio.timeout(DEADLINE_S):
        bus = Bus(address, transient_client_id("present"), presence=Presence("n", "e"))
        async with running(bus):
            assert (await statuses.queue.get()).message().state == "online"
        assert (await statuses.queue.get()).message().state == "offline"


async def test_publishing_without_a_connection_fails_at_once(address):
    """`publish` before connecting raises BrokerConnectionError without waiting."""
    with pytest.raises(BrokerConnectionError):
        await Bus(address, transient_client_id("early")).publish(EVENT, event(1), node="n", name="e")


async def test_run_can_be_cancelled_at_any_moment(address):
    """`run` ends when cancelled after 0 to 20 ms, in steps of 0.1 ms: no await loses the cancellation."""
    for moment in range(200):
        bus = Bus(address, f"brief-{moment}", presence=Presence("n", "e"))
        connection = asyncio.create_task(bus.run())
        await asyncio.wait({connection}, timeout=moment / 10_000)
        connection.cancel()
        ended, _ = await asyncio.wait({connection}, timeout=DEADLINE_S)
        assert ended, f"not after {moment / 10} ms"
        assert connection.cancelled()


def test_the_pinned_libraries_have_the_private_parts_that_are_used():
    """`BrokerConnection` uses private parts of aiomqtt and paho; a version without them fails here."""

    async def client() -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1")

    aio = asyncio.run(client())
    paho = aio._client
    assert callable(aio._on_socket_open)
    assert isinstance(aio._disconnected, asyncio.Future)
    for name in ("_sock_send", "_sock_recv", "_handle_pubackcomp"):
        assert callable(getattr(paho, name)), name
    assert paho._ping_t == 0
    assert list(paho._out_packet) == []
    assert "packet" in paho._in_packet
    assert callable(paho.manual_ack_set)
    assert callable(paho.ack)
    assert callable(paho._sock_close)


async def test_a_full_queue_loses_nothing(address):
    """While a queue is full nothing is read, the connection lives, and everything arrives in order."""
    bus, other = Bus(address, "durable", durable=True), Bus(address, transient_client_id("other"))
    events = bus.subscribe(EVENT, queue=2)
    async with running(bus, other), asyncio.timeout(DEADLINE_S):
        for number in range(100):
            await other.publish(EVENT, event(number), node="n", name="e")
        await eventually(lambda: bus.counters["bus.paused"] >= 1)
        assert events.queue.qsize() < 50
        seen = []
        while len(seen) < 100:
            delivery = await events.queue.get()
            seen.append(delivery.message().at_ms)
            delivery.ack()
        assert seen == list(range(100))
        assert bus.counters["bus.disconnected"] == 0


@pytest.mark.parametrize(
    ("username", "password", "words"),
    [
        ("a" * 70_000, None, "the user name has 70000 bytes; MQTT allows 65535"),
        ("a", "s3cret" * 20_000, "the password has 120000 bytes"),
        ("a", "s3cr\udce9t", "the password is not UTF-8"),
    ],
)
async def test_a_login_that_mqtt_cannot_carry_is_refused(address, username, password, words):
    """It ends the client with one sentence, which does not quote a password."""
    bus = Bus(structs.replace(address, username=username), "odd-login", password=password)
    with pytest.raises(BrokerRefusedError) as refusal:
        await bus.run()
    assert str(refusal.value).startswith(words)
    assert "s3c" not in str(refusal.value)


async def test_an_event_that_somebody_retained_does_not_happen_again(address):
    """Events are of their moment: an old `model.failed` must not roll back each later rollout."""
    bus = Bus(address, transient_client_id("late"), counters=Counters())
    sender = Bus(address, transient_client_id("sender"))
    events = bus.subscribe(EVENT)
    async with running(sender):
        old, new = (Event(node="n", name="e", event="test.happened", at_ms=number) for number in (1, 2))
        await sender.publish_bytes(EVENT.name(node="n", name="e"), encode(EVENT, old), retain=True)
        async with running(bus):
            await sender.publish(EVENT, new, node="n", name="e")
            assert (await events.queue.get()).message().at_ms == 2
            assert bus.counters["bus.unmatched"] == 0
