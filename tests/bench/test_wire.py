"""The small MQTT client of the load, against a real broker and the real bus."""

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
from tests.conftest import eventually, running


@given(st.integers(0, 268_435_455))
def test_length_is_read_as_written(number: int) -> None:
    """A packet's length comes back, in as many bytes as MQTT says."""
    written = wire.length(number)
    assert len(written) == 1 + sum(number >= 128**power for power in (1, 2, 3))
    if number < 100_000:
        assert wire.split(bytearray(b"\x30" + written + bytes(number + 3))) == (
            0x30,
            bytes(number),
            1 + len(written) + number,
        )
        assert wire.split(bytearray(b"\x30" + written + bytes(number))[:-1]) is None


async def test_photo_and_result_cross(address: Broker) -> None:
    """A photo of the load reaches a subscription of the bus whole, and a result comes back to the load."""
    came: list[tuple[str, bytes]] = []
    bus = Bus(address, "edge")
    photos = bus.subscribe(PHOTO, node=NODE)
    (image,) = pictures(1)
    async with running(bus):
        camera = await wire.connect(
            address.port, "camera", lambda topic, message: came.append((topic, message))
        )
        await camera.subscribe(RESULT.select(node=NODE))
        camera.publish(PHOTO.name(node=NODE, device="a"), payload("a", image, "0" * 32))
        async with asyncio.timeout(10):
            delivery = await anext(photos)
        assert delivery.message().image == image
        delivery.ack()
        result = Result(photo_id="0" * 32, node=NODE, device="a", status="ok", answered_at_ms=1)
        await bus.publish(RESULT, result, node=NODE, device="a")
        await eventually(lambda: bool(came) and not camera.unacknowledged)
        camera.close()
    assert came[0][0] == RESULT.name(node=NODE, device="a")


async def test_a_durable_camera_gets_what_it_missed(address: Broker) -> None:
    """A session that is not clean keeps its results while the camera is away."""
    came: list[bytes] = []
    bus = Bus(address, "edge")
    async with running(bus):
        camera = await wire.connect(address.port, "camera", lambda *_: None, clean=False)
        await camera.subscribe("some/topic")
        camera.close()
        await bus.publish_bytes("some/topic", b"while it was away")
        camera = await wire.connect(
            address.port, "camera", lambda _, message: came.append(message), clean=False
        )
        await eventually(lambda: bool(came))
        camera.close()
    assert came == [b"while it was away"]


async def test_a_broker_that_hangs_up() -> None:
    """Whoever waits for the broker hears that it hung up, at once."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(wire.WireError, match="hung up"):
            await wire.connect(server.sockets[0].getsockname()[1], "camera", lambda *_: None)
