"""All the ways that a connection fails or ends, with a real broker."""

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
from bus.mqtt.connection.connection import BrokerConnection
from bus.mqtt.errors import BrokerConnectionError, BrokerRefusedError
from bus.mqtt.presence import Presence
from bus.mqtt.session import connected
from schemas.messages import Event
from schemas.topics import EVENT, STATUS
from tests.conftest import DEADLINE_S, eventually, running
from tests.proxy import Proxy, proxy_to

KEEPALIVE_S = 5


def present(address: Broker, client_id: str = "present", **options: object) -> Bus:
    return Bus(address, client_id, presence=Presence("n", "e"), counters=Counters(), **options)  # type: ignore[arg-type]  # options of Bus


def event(number: int) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


@asynccontextmanager
async def through_proxy(broker: BrokerProcess) -> AsyncIterator[tuple[Proxy, Broker]]:
    async with proxy_to(broker.port) as proxy:
        yield proxy, Broker(port=proxy.port, keepalive_s=KEEPALIVE_S)


async def retained_state(address: Broker) -> str | None:
    """Return the component's state in the retained Status, or None."""
    bus = Bus(address, transient_client_id("reader"))
    statuses, markers = bus.subscribe(STATUS, node="n", name="e"), bus.subscribe(EVENT)
    async with running(bus), asyncio.timeout(DEADLINE_S):
        # The broker sends retained messages when we subscribe, so the marker arrives after them.
        await bus.publish(EVENT, event(0), node="n", name="reader")
        await markers.queue.get()
        return None if statuses.queue.empty() else statuses.queue.get_nowait().message().state


async def test_g1_a_client_with_many_unacknowledged_messages_can_reconnect(address):
    """G1: the probe of a new connection does not queue behind messages that wait for acknowledgement."""
    for _ in range(2):
        bus = present(address, "durable", durable=True)
        bus.subscribe(EVENT, queue=1024)
        async with running(bus):
            for number in range(120):
                await bus.publish(EVENT, event(number), node="n", name="e")


async def test_two_clients_with_one_id_are_reported_as_flapping(address, monkeypatch):
    """A client whose connections end again and again after a short time counts it and logs a hint."""
    monkeypatch.setattr("bus.backoff.RESET_AFTER_S", 3600.0)  # however slowly each is thrown out
    buses = [present(address, "twin") for _ in range(2)]
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            twins = [tasks.create_task(bus.run()) for bus in buses]
            await eventually(lambda: any(bus.counters["bus.flapping"] for bus in buses))
            for twin in twins:
                twin.cancel()
    hints = [line["hint"] for line in logs if line["event"] == "bus.flapping"]
    assert hints == ["does another client use the same id?"] * len(hints) != []


async def test_flapping_ends_with_a_connection_that_lasts(address, monkeypatch):
    """When the twin is gone, as many `bus.settled` are counted as `bus.flapping`: the fault is over."""
    monkeypatch.setattr("bus.backoff.RESET_AFTER_S", 3600.0)
    monkeypatch.setattr("bus.mqtt.client._CHECK_S", 0.02)
    kept, other = (present(address, "twin") for _ in range(2))
    async with running(kept):
        async with running(other):
            await eventually(lambda: kept.counters["bus.flapping"] > 0)
            assert kept.counters["bus.settled"] == 0, "a connection has to last for a minute"
        monkeypatch.setattr("bus.mqtt.outage.SETTLED_S", 0.2)
        await eventually(lambda: kept.counters["bus.settled"] == kept.counters["bus.flapping"])


async def test_a_silent_connection_is_replaced(broker):
    """If no bytes arrive any more, the keep-alive ends the connection, and the next one works."""
    async with through_proxy(broker) as (proxy, address):
        bus = Bus(address, transient_client_id("listener"), counters=Counters())
        async with running(bus):
            number = await bus.connected()
            proxy.go_silent()
            await eventually(lambda: bus.counters["bus.disconnected"] > 0)
            with pytest.raises(BrokerConnectionError):
                await bus.publish(EVENT, event(1), node="n", name="e")
            proxy.resume()
            async with asyncio.timeout(DEADLINE_S):
                assert await bus.connected(number) > number


async def test_an_attempt_that_times_out_closes_its_socket(broker, monkeypatch):
    """If the broker accepts and stays silent the socket is closed: a late answer would be accepted."""
    monkeypatch.setattr("bus.mqtt.connection.connection._CONNECT_S", 0.1)
    async with through_proxy(broker) as (proxy, address):
        proxy.go_silent()
        bus = present(address)
        open_connection, attempts = bus._open, []
        monkeypatch.setattr(bus, "_open", lambda: attempts.append(open_connection()) or attempts[-1])
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            await eventually(lambda: bus.counters["bus.disconnected"] >= 2)
            assert proxy.accepted >= 2
            assert [attempt._paho.socket() for attempt in attempts[:2]] == [None, None]
            connection.cancel()


async def test_a_refused_client_logs_the_reason_and_retries(broker, address, monkeypatch):
    """A client that the broker refuses is not ready, warns once with the reason, and retries."""
    monkeypatch.setattr("bus.broker.process.configuration", _without_anonymous)
    broker.stop()
    broker.start()
    bus = present(address)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            await eventually(lambda: bus.counters["bus.disconnected"] >= 2)
            assert bus.unready_reason() is not None
            monkeypatch.undo()
            broker.stop()
            broker.start()
            async with asyncio.timeout(DEADLINE_S):
                await bus.connected()
            connection.cancel()
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["bus.disconnected"]
    assert "Not authorized" in warnings[0]["error"]


def _without_anonymous(*arguments: object, **options: object) -> str:
    return configuration(*arguments, **options).replace("allow_anonymous true", "allow_anonymous false")  # type: ignore[arg-type]  # passed on


async def test_each_outage_is_logged_as_a_warning(broker, address):
    """The first failure after a connection that lasted is a warning, however many outages came before."""
    with capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bus.backoff.RESET_AFTER_S", 0.0)
        bus = present(address)
        async with running(bus):
            for _ in range(2):
                number = await bus.connected()
                broker.kill()
                broker.start()
                async with asyncio.timeout(DEADLINE_S):
                    await bus.connected(number)
    lost = [line for line in logs if line["event"] == "bus.disconnected" and line["log_level"] == "warning"]
    assert len(lost) == 2


@pytest.mark.parametrize("state", ["subscribing", "probing", "connected", "lost"])
async def test_the_status_is_offline_after_a_cancellation_in_any_state(broker, address, state, monkeypatch):
    """The retained Status is `offline` after a cancellation in any state."""
    async with through_proxy(broker) as (proxy, far):
        bus = present(far)
        connection = asyncio.create_task(bus.run())
        match state:
            case "subscribing":
                started = asyncio.Event()
                monkeypatch.setattr(BrokerConnection, "subscribe", partial(hang, started))
                await started.wait()
            case "probing":
                bus._is_probe = lambda *_: False  # type: ignore[method-assign]
                await eventually_retained(address, "online")
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
        await eventually_retained(address, "offline")


async def test_a_cancelled_connection_attempt_closes_its_socket(address, monkeypatch):
    """The thread that connects cannot be cancelled, but its socket is closed."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    for turns in range(0, 400, 10):
        bus = present(address)
        open_connection, attempts = bus._open, []
        monkeypatch.setattr(
            bus,
            "_open",
            lambda opener=open_connection, opened=attempts: opened.append(opener()) or opened[-1],
        )
        connection = asyncio.create_task(bus.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.cancel()
        await asyncio.wait([connection])
        assert [attempt._paho.socket() for attempt in attempts] == [None] * len(attempts)
    assert errors == []


async def hang(started: asyncio.Event, *_: object, **__: object) -> None:
    started.set()
    await asyncio.Event().wait()


async def eventually_retained(address: Broker, state: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await retained_state(address) != state:
            pass


async def test_a_cancellation_while_the_connection_breaks_is_not_lost(broker, address):
    """`run` ends if it is cancelled at the moment when its connection fails."""
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
    await asyncio.wait([connection], timeout=DEADLINE_S)
    assert connection.cancelled()


async def test_an_unexpected_error_ends_run_with_the_status_offline(address, monkeypatch):
    """An exception while receiving publishes `offline` and leaves `run` unchanged."""
    bus = present(address)
    bus.subscribe(EVENT)

    def fail(*_: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(bus._subscriptions, "_deliver", fail)
    connection = asyncio.create_task(bus.run())
    await bus.connected()
    with contextlib.suppress(BrokerConnectionError):
        await bus.publish(EVENT, event(1), node="n", name="e")
    with pytest.raises(RuntimeError, match="unexpected"):
        await connection
    assert await retained_state(address) == "offline"


async def test_each_reason_of_an_outage_is_logged_once(broker, address, monkeypatch):
    """After a lost connection, a changed password is reported too; the same reason again is not a warning."""
    bus = present(address)
    with capture_logs() as logs:
        async with running(bus):
            monkeypatch.setattr("bus.broker.process.configuration", _without_anonymous)
            broker.stop()
            broker.start()
            await eventually(lambda: "Not authorized" in bus.last_error)
            count = bus.counters["bus.disconnected"]
            await eventually(lambda: bus.counters["bus.disconnected"] >= count + 2)
    warnings = [line["error"] for line in logs if line["event"] == "bus.disconnected"]
    warned = [line["error"] for line in logs if line["log_level"] == "warning" and "error" in line]
    assert len(warned) == len(set(warned)) < len(warnings)
    assert [error for error in warned if "Not authorized" in error and "GLEANER_MQTT_PASSWORD" in error]


async def test_a_command_with_a_wrong_password_names_its_variable(broker, address, monkeypatch):
    """The same command fails again, so the error is not transient; the hint names the variable."""
    monkeypatch.setattr("bus.broker.process.configuration", _without_anonymous)
    broker.stop()
    broker.start()
    bus = Bus(address, transient_client_id("command"))
    with pytest.RaisesGroup(pytest.RaisesExc(BrokerRefusedError, match="GLEANER_MQTT_PASSWORD")):
        async with connected(bus, address, timeout_s=2.0):
            pass
