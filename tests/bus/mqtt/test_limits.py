"""Limits of a foreign broker: what is too large is set aside with the limit's name."""

import asyncio
import struct
from contextlib import asynccontextmanager

import pytest

from bus.broker.mosquitto_conf import configuration
from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.errors import MessageTooLargeError
from bus.mqtt.presence import Presence
from bus.outbox.damage import DamageLog
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.topics import PHOTO
from tests.conftest import DEADLINE_S, eventually, running

TOPIC = PHOTO.name(node="n", device="d")


def limit(monkeypatch, broker, old: str, new: str) -> None:
    """Restart the broker with a changed line of its configuration."""

    def changed(*arguments: object, **options: object) -> str:
        text = configuration(*arguments, **options)  # type: ignore[arg-type]  # passed on
        return text.replace(old, new) if old else f"{text}{new}\n"

    monkeypatch.setattr("bus.broker.process.configuration", changed)
    broker.stop()
    broker.start()


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("", "max_packet_size 50000", "Maximum Packet Size"),
        (f"message_size_limit {MAX_PAYLOAD_BYTES}", "message_size_limit 50000", "message_size_limit"),
    ],
)
async def test_a_photo_above_the_limit_of_the_broker_is_set_aside(
    broker, address, tmp_path, monkeypatch, old, new, name
):
    """A message above the broker's limit is set aside, `degraded` names the limit, the others are sent."""
    limit(monkeypatch, broker, old, new)
    presence, counters = Presence("n", "d"), Counters()
    bus, reader = Bus(address, "far", presence=presence, counters=counters), Bus(address, "reader")
    queue = reader.subscribe_raw(TOPIC)
    damage = DamageLog(counters)
    tables = {"outbox": Outbox.MIGRATIONS}
    async with running(bus, reader), Database(tmp_path / "o.db", tables, damage=damage) as database:
        outbox = Outbox(database, OutboxLimits(), counters, name="photo")
        await outbox.put("large", TOPIC, bytes(60_000))
        await outbox.put("small", TOPIC, bytes(1000))
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(DEADLINE_S):
            work = [
                tasks.create_task(outbox.run(bus.publish_bytes, bus.connected)),
                tasks.create_task(damage.run(bus.report_degraded)),
            ]
            assert len((await queue.get()).payload) == 1000
            await eventually(lambda: name in (presence.degraded_reason() or ""))
            await outbox.mark_answered("small")
            await outbox.wait_until_empty()
            for task in work:
                task.cancel()
        assert counters["photo.set_aside"] == 1
        assert counters["bus.disconnected"] == 0


async def test_a_topic_above_the_limit_of_mqtt_is_too_large(address):
    """It ends no connection, and is reported as a message that is too large."""
    bus = Bus(address, "far")
    async with running(bus):
        for topic in ("x" * 65_536, "\u00e4" * 32_768):
            with pytest.raises(MessageTooLargeError, match="a topic has 65536 bytes"):
                await bus.publish_bytes(topic, b"")
        await bus.publish_bytes("x" * 65_535, b"")
        assert bus.counters["bus.disconnected"] == 0


@asynccontextmanager
async def old_broker(port: int, *, silent: bool):
    """A broker that speaks MQTT 3.1.1 alone: forwards to a real one, refuses or closes on MQTT 5."""
    versions: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = await reader.read(4096)
        level = connect[connect.index(b"MQTT") + 4]
        versions.append(level)
        if level == 5:
            if not silent:
                writer.write(struct.pack("!BBBB", 0x20, 2, 0, 1))
                await writer.drain()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        far_writer.write(connect)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipe(reader, far_writer))
                tasks.create_task(pipe(far_reader, writer))
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], versions
    finally:
        server.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(("silent", "again"), [(False, [4]), (True, [5, 4])], ids=["refuses", "closes"])
async def test_mqtt_5_is_tried_again_unless_the_broker_refuses_it(broker, silent, again):
    """A proxy closes too while its broker is away: the client must not speak 3.1.1 from then on."""
    async with old_broker(broker.port, silent=silent) as (port, versions):
        bus = Bus(Broker(port=port), transient_client_id("new"))
        async with running(bus):
            number = bus.connection_number
            broker.kill()
            broker.start()
            await bus.connected(after=number)
        assert versions[:2] == [5, 4]
        tried = versions[2:]
        assert tried[-len(again) :] == again
        assert (5 in tried) == silent


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "closes"])
async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(broker, silent):
    """A broker that refuses MQTT 5, or closes the connection, gets MQTT 3.1.1 with the next attempt."""
    async with old_broker(broker.port, silent=silent) as (port, versions):
        bus = Bus(Broker(port=port), transient_client_id("new"), presence=Presence("n", "d"))
        async with running(bus):
            await bus.publish_bytes(TOPIC, b"x")
            assert versions == [5, 4]
