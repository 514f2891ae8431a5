"""Each way in which a connection ends or does not come about, with a real broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from structlog.testing import capture_logs

from bus.broker.mosquitto_conf import configuration
from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import Presence
from schemas.messages import Event
from schemas.topics import EVENT, STATUS
from tests.conftest import eventually, running
from tests.proxy import Proxy, proxy_to

KEEPALIVE_S = 5


def present(address: Broker, client_id: str = "present", **options: object) -> Bus:
    return Bus(address, client_id, presence=Presence("n", "e"), counters=Counters(), **options)  # type: ignore[arg-type]  # a test's own words


def event(number: int) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


@asynccontextmanager
async def through_proxy(broker: BrokerProcess) -> AsyncIterator[tuple[Proxy, Broker]]:
    async with proxy_to(broker.port) as proxy:
        yield proxy, Broker(port=proxy.port, keepalive_s=KEEPALIVE_S)


async def last_word(address: Broker) -> str | None:
    """Return the state that the broker retains of the component, None if it never said anything."""
    bus = Bus(address, transient_client_id("reader"))
    statuses, ends = bus.subscribe(STATUS, node="n", name="e"), bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(15):
        await bus.publish(EVENT, event(0), node="n", name="reader")  # comes behind what is retained
        await ends.queue.get()
        return None if statuses.queue.empty() else statuses.queue.get_nowait().message().state


async def test_g1_a_session_full_of_unacknowledged_messages_keeps_nobody_out(address):
    """However many messages wait for their acknowledgement, a client proves its connection and can answer."""
    for _ in range(2):
        bus = present(address, "durable", durable=True)
        bus.subscribe(EVENT, queue=1024)
        async with running(bus):
            for number in range(120):
                await bus.publish(EVENT, event(number), node="n", name="e")


async def test_two_clients_of_one_id_back_off_and_say_so(address):
    """Who is thrown out again and again says it, and its pauses grow, so that the other one can work."""
    buses = [present(address, "twin") for _ in range(2)]
    counted = [bus.counters for bus in buses]
    with capture_logs() as said:
        async with asyncio.TaskGroup() as tasks:
            twins = [tasks.create_task(bus.run()) for bus in buses]
            await eventually(lambda: any(counters["bus.unsteady"] for counters in counted), within_s=60)
            for twin in twins:
                twin.cancel()
    hints = [line["hint"] for line in said if line["event"] == "bus.unsteady"]
    assert hints == ["does another client use the same id?"] * len(hints) != []


async def test_a_link_gone_silent_is_noticed_and_replaced(broker):
    """When nothing comes through any more, the keepalive ends the connection, and the next one works."""
    async with through_proxy(broker) as (proxy, address):
        bus = Bus(address, transient_client_id("listener"), counters=Counters())
        async with running(bus):
            number = await bus.connected()
            proxy.go_silent()
            await eventually(lambda: bus.counters["bus.disconnected"] > 0, within_s=60)
            with pytest.raises(BrokerConnectionError):
                await bus.publish(EVENT, event(1), node="n", name="e")
            proxy.resume()
            async with asyncio.timeout(60):
                assert await bus.connected(number) > number


async def test_an_attempt_without_an_answer_leaves_no_socket(broker, monkeypatch):
    """A broker that accepts and stays silent is given up completely: its late answer would take over."""
    monkeypatch.setattr("bus.mqtt.connection._CONNECT_S", 0.1)
    async with through_proxy(broker) as (proxy, address):
        proxy.go_silent()
        bus = present(address)
        make, made = bus._open, []
        monkeypatch.setattr(bus, "_open", lambda: made.append(make()) or made[-1])
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            await eventually(lambda: bus.counters["bus.disconnected"] >= 2)
            assert proxy.accepted >= 2
            assert [link._paho.socket() for link in made[:2]] == [None, None]
            connection.cancel()


async def test_a_refusal_is_said_and_outlived(broker, address, monkeypatch):
    """A broker that lets nobody in is asked again, its reason is told, and nothing looks connected."""
    monkeypatch.setattr("bus.broker.process.configuration", _nobody)
    broker.stop()
    broker.start()
    bus = present(address)
    with capture_logs() as said:
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            await eventually(lambda: bus.counters["bus.disconnected"] >= 2)
            assert bus.unready_reason() is not None
            monkeypatch.undo()
            broker.stop()
            broker.start()
            async with asyncio.timeout(60):
                await bus.connected()
            connection.cancel()
    warnings = [line for line in said if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["bus.disconnected"]
    assert "Not authorized" in warnings[0]["error"]


def _nobody(*arguments: object, **options: object) -> str:
    return configuration(*arguments, **options).replace("allow_anonymous true", "allow_anonymous false")  # type: ignore[arg-type]  # passed on


async def test_each_outage_is_news(broker, address):
    """The first failure after a time of work is a warning again, however many outages came before."""
    with capture_logs() as said, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bus.backoff.STEADY_S", 0.0)
        bus = present(address)
        async with running(bus):
            for _ in range(2):
                number = await bus.connected()
                broker.kill()
                broker.start()
                async with asyncio.timeout(60):
                    await bus.connected(number)
    lost = [line for line in said if line["event"] == "bus.disconnected" and line["log_level"] == "warning"]
    assert len(lost) == 2


@pytest.mark.parametrize("state", ["subscribing", "proving", "connected", "lost"])
async def test_cancelled_in_any_state_it_says_offline(broker, address, state, monkeypatch):
    """Whatever it is doing when it is told to end: nobody is left to believe that it is online."""
    async with through_proxy(broker) as (proxy, far):
        bus = present(far)
        connection = asyncio.create_task(bus.run())
        match state:
            case "subscribing":
                begun = asyncio.Event()
                monkeypatch.setattr("bus.mqtt.connection.BrokerConnection.subscribe", partial(hang, begun))
                await begun.wait()
            case "proving":
                bus._is_echo = lambda *_: False  # type: ignore[method-assign]
                await eventually_says(address, "online")
            case "connected":
                await bus.connected()
            case "lost":
                await bus.connected()
                proxy.closed = True
                proxy.cut()
                await eventually(lambda: bus.counters["bus.disconnected"] > 0)
        connection.cancel()
        await asyncio.wait([connection])
        monkeypatch.undo()
        await eventually_says(address, "offline")


async def test_cancelled_while_it_connects_it_leaves_nothing_open(address, monkeypatch):
    """Connecting has a thread, which cannot be cancelled: its socket is closed all the same."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    for turns in range(0, 400, 10):
        bus = present(address)
        make, made = bus._open, []
        monkeypatch.setattr(bus, "_open", lambda make=make, made=made: made.append(make()) or made[-1])
        connection = asyncio.create_task(bus.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.cancel()
        await asyncio.wait([connection])
        assert [link._paho.socket() for link in made] == [None] * len(made)
    assert errors == []


async def hang(begun: asyncio.Event, *_: object, **__: object) -> None:
    begun.set()
    await asyncio.Event().wait()


async def eventually_says(address: Broker, state: str) -> None:
    async with asyncio.timeout(30):
        while await last_word(address) != state:
            pass


async def test_told_to_end_while_the_connection_breaks_it_ends(broker, address):
    """The end of a connection does not hide that all is to end: else nothing but a kill would end it."""
    bus = present(address)
    serve = bus._serve

    async def serve_until_both(*arguments) -> None:
        try:
            await serve(*arguments)
        finally:
            connection.cancel()

    bus._serve = serve_until_both  # type: ignore[method-assign]
    connection = asyncio.create_task(bus.run())
    await bus.connected()
    broker.kill()
    await asyncio.wait([connection], timeout=30)
    assert connection.cancelled()


async def test_an_error_on_the_way_out_says_offline(address, monkeypatch):
    """A fault of our own ends the connection with `offline`, and leaves as it is."""
    bus = present(address)
    bus.subscribe(EVENT)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(bus, "_deliver", fail)
    connection = asyncio.create_task(bus.run())
    await bus.connected()
    with contextlib.suppress(BrokerConnectionError):
        await bus.publish(EVENT, event(1), node="n", name="e")
    with pytest.raises(RuntimeError, match="a fault of our own"):
        await connection
    assert await last_word(address) == "offline"
