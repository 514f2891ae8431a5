import asyncio
import contextlib
import socket
import time

import aiomqtt
import pytest
from structlog.testing import capture_logs

from bus import mqtt
from bus.broker import free_port
from bus.config import Broker, ConfigError, Tls
from bus.mqtt import Bus, LinkError, passing_id
from bus.presence import Presence
from schemas.errors import TopicError
from schemas.messages import Command, Event, Status
from schemas.topics import COMMAND, EVENT, STATUS
from tests.conftest import eventually, running
from tests.proxy import proxy_to


@pytest.fixture(autouse=True)
def _no_leftovers(event_loop_errors):
    """Every test of this file ends without a task that was left behind or failed unseen."""


@pytest.fixture
async def event_loop_errors():
    """What the event loop had to complain about; asserted empty at the end, as are leftover tasks."""
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield complaints
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    async with asyncio.timeout(3):
        await asyncio.gather(*left, return_exceptions=True)
    assert complaints == []


def event(number: int = 0) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


def command(interval_s: float = 1.0) -> Command:
    return Command(node="n", device="d", action="set-interval", interval_s=interval_s)


async def next_of(subscription, within_s=10.0):
    async with asyncio.timeout(within_s):
        return await anext(subscription)


async def test_a_message_arrives_as_its_type_with_the_names_of_its_topic(address):
    """What is published typed arrives typed, with the names that stood in the topic."""
    near, far = Bus(address, passing_id("near")), Bus(address, passing_id("far"))
    events = far.subscribe(EVENT, node="n")
    async with running(near, far):
        await near.publish(EVENT, event(7), node="n", name="e")
        delivery = await next_of(events)
        delivery.ack()
        assert delivery.message() == event(7)
        assert delivery.names == {"node": "n", "name": "e"}
        assert not delivery.retained


async def test_two_subscriptions_of_one_topic_get_what_each_asked_for(address):
    """A message goes to the subscription that asked for its names, not to the first of its kind."""
    bus = Bus(address, passing_id("both"))
    first = bus.subscribe(EVENT, node="a")
    second = bus.subscribe(EVENT, node="b", name="x")
    async with running(bus):
        await bus.publish(EVENT, Event(node="b", name="x", event="e", at_ms=1), node="b", name="x")
        await bus.publish(EVENT, Event(node="a", name="x", event="e", at_ms=2), node="a", name="x")
        assert (await next_of(second)).names["node"] == "b"
        assert (await next_of(first)).names["node"] == "a"
        assert first.queue.empty()
        assert second.queue.empty()


async def test_what_was_not_acknowledged_comes_again(address):
    """A durable client gets again on its next connection what it left unacknowledged, and only that."""
    sender = Bus(address, passing_id("sender"))

    async def take(count, *, acknowledged):
        bus = Bus(address, "durable-one", durable=True)
        events = bus.subscribe(EVENT)
        got = []
        async with running(bus):
            if acknowledged:
                for number in range(4):
                    await sender.publish(EVENT, event(number), node="n", name="e")
            for _ in range(count):
                delivery = await next_of(events)
                at = delivery.message().at_ms
                got.append(at)
                if at in acknowledged:
                    delivery.ack()
            # The proof that all acknowledgements left: a publish behind them came back.
            await bus.publish(COMMAND, command(), node="n", device="d")
        return got

    async with running(sender):
        assert await take(4, acknowledged={0, 2}) == [0, 1, 2, 3]
        assert await take(2, acknowledged=set()) == [1, 3]


async def test_the_same_bus_outlives_a_killed_broker(broker, address):
    """Broker killed and restarted on its port: subscriptions and publishers go on, the outage is logged."""
    bus = Bus(address, passing_id("survivor"))
    events = bus.subscribe(EVENT)
    with capture_logs() as logs:
        async with running(bus):
            number = await bus.connected()
            before = time.monotonic()
            broker.kill()
            await eventually(
                lambda: bus.counters["bus.disconnected"] >= 2
            )  # the lost link, a refused attempt
            with pytest.raises(LinkError):
                await bus.publish(EVENT, event(), node="n", name="e")
            broker.start()
            async with asyncio.timeout(15):
                assert await bus.connected(number) > number
            outage_s = time.monotonic() - before
            await bus.publish(EVENT, event(5), node="n", name="e")
            assert (await next_of(events)).message().at_ms == 5
    outages = [line["outage_s"] for line in logs if line["event"] == "bus.connected"]
    assert outages[0] is None
    assert 0 <= outages[1] <= outage_s + 0.1
    levels = [line["log_level"] for line in logs if line["event"] == "bus.disconnected"]
    assert levels[0] == "warning"
    assert set(levels[1:]) <= {"debug"}


async def test_an_acknowledgement_to_a_broker_that_is_gone_does_nothing(broker, address):
    """A delivery of a lost connection can still be acknowledged: no error, and it comes again."""
    bus = Bus(address, "late-ack", durable=True)
    events = bus.subscribe(EVENT)
    async with running(bus):
        await bus.publish(EVENT, event(1), node="n", name="e")
        delivery = await next_of(events)
        broker.kill()
        await eventually(lambda: bus.counters["bus.disconnected"] >= 1)
        delivery.ack()
        delivery.ack()


async def test_a_broker_that_is_not_there_is_tried_until_it_is(broker, address):
    """Attempts are refused first, quietly after the first; then one works, and says how long it took."""
    broker.stop()
    bus = Bus(address, passing_id("patient"))
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            await eventually(lambda: bus.counters["bus.disconnected"] >= 3)
            assert bus.counters["bus.connected"] == 0
            broker.start()
            async with asyncio.timeout(15):
                await bus.connected()
            connection.cancel()
    levels = [line["log_level"] for line in logs if line["event"] == "bus.disconnected"]
    assert levels == ["warning"] + ["debug"] * (len(levels) - 1)
    assert next(line["outage_s"] for line in logs if line["event"] == "bus.connected") > 0


async def test_a_slow_failure_is_no_steady_connection(monkeypatch):
    """An attempt that fails only after a while resets neither the back-off nor the first failure's mark."""
    monkeypatch.setattr(mqtt, "_STEADY_S", 0.0)
    bus = Bus(Broker(port=free_port()), passing_id("nobody"))
    with capture_logs() as logs:
        connection = asyncio.create_task(bus.run())
        await eventually(lambda: bus.counters["bus.disconnected"] >= 3)
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)
    levels = [line["log_level"] for line in logs if line["event"] == "bus.disconnected"]
    assert levels == ["warning"] + ["debug"] * (len(levels) - 1)


async def test_a_second_client_of_the_same_id_takes_over_without_a_storm(address):
    """Two clients of one id throw each other out, ever more slowly, and neither breaks."""
    one, two = Bus(address, "same-id"), Bus(address, "same-id")
    async with running(one):
        connecting = asyncio.create_task(two.run())
        async with asyncio.timeout(10):
            await two.connected()
        await eventually(lambda: one.counters["bus.disconnected"] >= 1)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        async with asyncio.timeout(15):
            await one.connected(1)
        await one.publish(EVENT, event(), node="n", name="e")


async def test_a_publish_into_silence_ends_with_an_error(broker):
    """On a link that went silent a pending publish ends with LinkError, and the link is given up."""
    async with proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port, keepalive_s=2), passing_id("silence"))
        async with running(bus):
            proxy.go_silent()
            with pytest.raises(LinkError):
                async with asyncio.timeout(8):
                    await bus.publish(EVENT, event(), node="n", name="e")
            proxy.resume()
            proxy.cut()
            async with asyncio.timeout(15):
                await bus.connected(1)
            await bus.publish(EVENT, event(), node="n", name="e")


async def test_leaving_a_silent_link_is_prompt(broker, monkeypatch):
    """Cancelling `run` ends it within seconds even if the broker does not answer the farewell."""
    monkeypatch.setattr(mqtt, "_FAREWELL_S", 0.5)
    async with proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port), passing_id("silence"), presence=Presence("n", "silent"))
        async with running(bus):
            proxy.go_silent()
            # More than the sockets take up, so that not even the farewell leaves.
            flood = [asyncio.create_task(bus.publish_bytes("flood", bytes(4_000_000))) for _ in range(8)]
            await asyncio.sleep(0)
            began = time.monotonic()
        assert time.monotonic() - began < 4
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {LinkError}


@pytest.mark.parametrize("moment", range(8))
async def test_cancelling_ends_it_at_any_moment(broker, address, moment):
    """Wherever in connecting, subscribing or losing a link `run` is cancelled, it ends and leaves nothing."""
    bus = Bus(address, passing_id("cancelled"), presence=Presence("n", "cancelled"))
    bus.subscribe(EVENT)
    connection = asyncio.create_task(bus.run())
    if moment == 7:  # while it loses the link
        async with asyncio.timeout(10):
            await bus.connected()
        broker.kill()
    else:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(connection), moment * 0.004)
    connection.cancel()
    began = time.monotonic()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await connection
    assert time.monotonic() - began < 3


async def test_cancelling_while_the_link_breaks_is_not_lost(broker, monkeypatch):
    """A connection that fails in the very moment of cancelling does not swallow the cancelling."""
    bus = Bus(Broker(port=broker.port), passing_id("unlucky"), presence=Presence("n", "unlucky"))
    farewell = Bus._say_farewell

    async def broken_farewell(self, link):
        await farewell(self, link)
        raise aiomqtt.MqttError("the socket broke while leaving")

    monkeypatch.setattr(Bus, "_say_farewell", broken_farewell)
    connection = asyncio.create_task(bus.run())
    async with asyncio.timeout(10):
        await bus.connected()
    connection.cancel()
    async with asyncio.timeout(3):
        with pytest.raises(asyncio.CancelledError):
            await connection


async def test_a_silent_broker_leaves_no_open_sockets(broker):
    """Each failed attempt closes its socket: a broker that accepts and says nothing costs no descriptors."""
    async with proxy_to(broker.port) as proxy:
        proxy.go_silent()
        bus = Bus(Broker(port=proxy.port), passing_id("deaf"))
        connection = asyncio.create_task(bus.run())
        await eventually(lambda: proxy.accepted == 1)
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)
        await eventually(lambda: proxy.connections == 0, within_s=3)


async def statuses(bus, name="e1"):
    """Subscribe to one status; returns a function that waits for a state."""
    subscription = bus.subscribe(STATUS, node="n", name=name)

    async def until(state) -> Status:
        async with asyncio.timeout(10):
            async for delivery in subscription:
                delivery.ack()
                if (status := delivery.message()).state == state:
                    return status
        raise AssertionError

    return until


async def test_birth_report_and_farewell(address):
    """Presence is a retained `online`; a report changes it; leaving by an exception says `offline`."""
    watcher = Bus(address, passing_id("watcher"))
    until = await statuses(watcher)
    async with running(watcher):
        bus = Bus(address, passing_id("present"), presence=Presence("n", "e1"))
        with pytest.raises(ExceptionGroup, match="unhandled") as raised:
            async with running(bus):
                born = await until("online")
                await bus.report(state="degraded", reason="too hot")
                assert (await until("degraded")).reason == "too hot"
                late = Bus(address, passing_id("late"))
                late_until = await statuses(late)
                async with running(late):
                    assert (await late_until("degraded")).run_id == born.run_id
                raise RuntimeError("an exception leaves the block")
        assert raised.group_contains(RuntimeError)
        assert (await until("offline")).run_id == born.run_id


async def test_the_last_will_speaks_for_a_cut_connection(broker, address):
    """When the network cuts a component off, the broker publishes its last will."""
    watcher = Bus(address, passing_id("watcher"))
    until = await statuses(watcher)
    async with running(watcher), proxy_to(broker.port) as proxy:
        bus = Bus(Broker(port=proxy.port), passing_id("present"), presence=Presence("n", "e1"))
        async with running(bus):
            await until("online")
            proxy.cut()
            assert (await until("offline")).reason == "the connection broke"
            await until("online")


async def test_publishing_without_a_connection_fails_at_once():
    """There is no hidden queue: without a connection a publish raises LinkError immediately."""
    bus = Bus(Broker(port=free_port()), passing_id("alone"))
    began = time.monotonic()
    with pytest.raises(LinkError, match="expected a connection, got none"):
        await bus.publish(EVENT, event(), node="n", name="e")
    assert time.monotonic() - began < 0.5


async def test_a_name_that_is_no_dns_label_is_counted_and_forgotten(address):
    """Such a topic is acknowledged, so that the broker does not keep it for ever, and counted."""
    sender = Bus(address, passing_id("sender"))
    bus = Bus(address, "receiver", durable=True)
    bus.subscribe(EVENT)
    async with running(sender):
        async with running(bus):
            await sender.publish_bytes("gleaner/v1/event/N_O/x", b"{}")
            await eventually(lambda: bus.counters["bus.misaddressed"] == 1)
            await bus.publish(COMMAND, command(), node="n", device="d")
        again = Bus(address, "receiver", durable=True)
        events = again.subscribe(EVENT)
        async with running(again):
            await sender.publish(EVENT, event(), node="n", name="e")
            await next_of(events)
        assert again.counters["bus.misaddressed"] == 0
    with pytest.raises(TopicError):
        await sender.publish(EVENT, event(), node="N_O", name="x")


async def test_a_full_queue_is_counted_and_comes_again(address):
    """What finds its queue full stays with the broker and comes with the next connection."""
    sender = Bus(address, passing_id("sender"))
    async with running(sender):
        bus = Bus(address, "narrow", durable=True)
        narrow = bus.subscribe(EVENT, queue=2)
        async with running(bus):
            for number in range(5):
                await sender.publish(EVENT, event(number), node="n", name="e")
            await eventually(lambda: bus.counters["bus.overflowed"] == 3)
            (await next_of(narrow)).ack()
            (await next_of(narrow)).ack()
            await bus.publish(COMMAND, command(), node="n", device="d")
        wide_bus = Bus(address, "narrow", durable=True)
        wide = wide_bus.subscribe(EVENT)
        async with running(wide_bus):
            assert [(await next_of(wide)).message().at_ms for _ in range(3)] == [2, 3, 4]


async def test_a_group_shares_the_messages(address):
    """Of a shared subscription each message reaches exactly one member."""
    sender = Bus(address, passing_id("sender"))
    members = [Bus(address, passing_id("member")) for _ in range(2)]
    queues = [member.subscribe(EVENT, group="g") for member in members]
    async with running(sender, *members):
        for number in range(10):
            await sender.publish(EVENT, event(number), node="n", name="e")
        await eventually(lambda: sum(queue.queue.qsize() for queue in queues) >= 10)
        got = [
            queue.queue.get_nowait().message().at_ms for queue in queues for _ in range(queue.queue.qsize())
        ]
        assert sorted(got) == list(range(10))


async def test_a_tap_sees_what_no_subscription_wants(address):
    """A tap gets raw messages of any filter, and does not count them as misaddressed."""
    bus = Bus(address, passing_id("tap"))
    tapped = bus.tap("anything/#")
    async with running(bus):
        await bus.publish_bytes("anything/at/ALL", b"\x00\xff")
        async with asyncio.timeout(5):
            message = await tapped.get()
        assert (message.topic, message.payload) == ("anything/at/ALL", b"\x00\xff")
        assert bus.counters["bus.misaddressed"] == 0


def test_the_pinned_libraries_have_what_is_reached_into():
    """Aiomqtt's `_client` and paho's manual acknowledgement exist in the pinned versions."""

    async def client():
        return aiomqtt.Client("localhost")

    inner = asyncio.run(client())._client
    assert callable(inner.manual_ack_set)
    assert callable(inner.ack)
    assert callable(inner.socket)
    assert inner._manual_ack is False


async def test_the_certificate_files_are_read_before_the_first_attempt(tmp_path):
    """A missing or broken certificate file is an error of the configuration, not a link to try again."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for path in (tmp_path / "nothere.pem", broken):
        bus = Bus(Broker(port=free_port(), tls=Tls(ca=str(path))), passing_id("tls"))
        with pytest.raises(ConfigError, match="ca"):
            async with asyncio.timeout(3):
                await bus.run()


async def test_every_connection_sends_at_once(address):
    """Nagle's delay is off: it would cost milliseconds a photo."""
    bus = Bus(address, passing_id("fast"))
    async with running(bus):
        assert bus._link is not None
        inner = bus._link.client._client.socket()
        assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_passing_ids_differ():
    """Two commands at once do not throw each other out."""
    assert passing_id("x") != passing_id("x")
