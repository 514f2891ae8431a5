"""The MQTT client for load tests, with a real broker and the real bus."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import wire
from bench.photos import NODE, payload, pictures
from bus.config import Broker
from bus.mqtt.client import Bus
from schemas.messages import Result
from schemas.topics import PHOTO, RESULT
from tests.conftest import DEADLINE_S, eventually, running


@given(st.integers(0, 268_435_455))
def test_lengths_are_decoded_as_encoded(number: int) -> None:
    """An encoded length has the size that MQTT specifies, and decodes to the same number."""
    written = wire.length(number)
    assert len(written) == 1 + sum(number >= 128**power for power in (1, 2, 3))
    if number < 100_000:
        assert wire.split(bytearray(b"\x30" + written + bytes(number + 3))) == (
            0x30,
            bytes(number),
            1 + len(written) + number,
        )
        assert wire.split(bytearray(b"\x30" + written + bytes(number))[:-1]) is None


async def test_photo_and_result_are_delivered(address: Broker) -> None:
    """A photo reaches a subscription of the bus unchanged, and a result reaches the client."""
    received: list[tuple[str, bytes]] = []
    bus = Bus(address, "edge")
    photos = bus.subscribe(PHOTO, node=NODE)
    (image,) = pictures(1)
    async with running(bus):
        camera = await wire.connect(
            address.port, "camera", lambda topic, message: received.append((topic, message))
        )
        await camera.subscribe(RESULT.select(node=NODE))
        camera.publish(PHOTO.name(node=NODE, device="a"), payload("a", image, "0" * 32))
        async with asyncio.timeout(DEADLINE_S):
            delivery = await anext(photos)
        assert delivery.message().image == image
        delivery.ack()
        result = Result(photo_id="0" * 32, node=NODE, device="a", status="ok", answered_at_ms=1)
        await bus.publish(RESULT, result, node=NODE, device="a")
        await eventually(lambda: bool(received) and not camera.unacknowledged)
        camera.close()
    assert received[0][0] == RESULT.name(node=NODE, device="a")


async def test_a_durable_session_receives_missed_messages(address: Broker) -> None:
    """The broker keeps messages for a session that is not clean while it is disconnected."""
    received: list[bytes] = []
    bus = Bus(address, "edge")
    async with running(bus):
        camera = await wire.connect(address.port, "camera", lambda *_: None, clean=False)
        await camera.subscribe("some/topic")
        camera.close()
        await bus.publish_bytes("some/topic", b"missed")
        camera = await wire.connect(
            address.port, "camera", lambda _, message: received.append(message), clean=False
        )
        await eventually(lambda: bool(received))
        camera.close()
    assert received == [b"missed"]


async def test_a_broker_that_closes_the_connection() -> None:
    """A pending request fails at once when the broker closes the connection."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(wire.WireError, match="closed the connection"):
            await wire.connect(server.sockets[0].getsockname()[1], "camera", lambda *_: None)
