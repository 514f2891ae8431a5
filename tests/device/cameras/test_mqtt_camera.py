import pytest
from structlog.testing import capture_logs

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from device.cameras.base import CameraError
from device.cameras.mqtt_camera import MqttCamera
from tests.conftest import eventually, jpeg, running


@pytest.fixture
async def publish(address):
    """Publish a message as a camera would."""
    bus = Bus(address, "esp32")
    async with running(bus):
        yield bus.publish_bytes


async def test_each_picture_is_taken_once_and_only_the_newest(address, publish):
    """A photo is the newest picture since the last one, with the time of its arrival; others are dropped."""
    async with MqttCamera("cam/+/jpeg", address) as camera:
        await camera._bus.connected()
        await publish("cam/1/jpeg", jpeg(1))
        assert (await camera.capture()).image == jpeg(1)
        for number in (2, 3, 4):
            await publish("cam/1/jpeg", jpeg(number))
        await eventually(
            lambda: camera._newest._picture is not None and camera._newest._picture.image == jpeg(4)
        )
        arrived_ms = now_ms()
        frame = await camera.capture()
    assert (frame.image, frame.source) == (jpeg(4), "mqtt:cam/+/jpeg")
    assert arrived_ms - 60_000 < frame.taken_at_ms <= arrived_ms + 1
    assert camera.live


async def test_a_retained_picture_is_taken(address, publish):
    """The picture that the broker retained is there at once."""
    await publish("cam/1/jpeg", jpeg(1), retain=True)
    async with MqttCamera("cam/1/jpeg", address) as camera:
        assert (await camera.capture()).image == jpeg(1)


async def test_a_message_that_is_no_picture_is_skipped_with_one_warning(address, publish):
    """Other messages on the topic do not become photos, and do not fill the log."""
    with capture_logs() as logs:
        async with MqttCamera("cam/#", address) as camera:
            await camera._bus.connected()
            for text in (b"", b"online", b'{"a": 1}'):
                await publish("cam/status", text)
            await publish("cam/1/jpeg", jpeg(1))
            assert (await camera.capture()).image == jpeg(1)
    skipped = [entry["log_level"] for entry in logs if entry["event"] == "camera.message_skipped"]
    assert skipped == ["warning", "debug", "debug"]


async def test_a_broker_that_restarts_costs_no_later_picture(address, broker, publish):
    """The camera reconnects."""
    async with MqttCamera("cam/1/jpeg", address) as camera:
        first = await camera._bus.connected()
        broker.kill()
        broker.start()
        await camera._bus.connected(after=first)
        await eventually_published(publish, "cam/1/jpeg", jpeg(2))
        assert (await camera.capture()).image == jpeg(2)


async def test_no_failure_leaves_a_capture_waiting(address, monkeypatch):
    """Any end of the connection fails the capture, which would otherwise wait forever."""

    async def broken():
        raise UnicodeError("no such name")

    camera = MqttCamera("cam/1/jpeg", address)
    monkeypatch.setattr(camera._bus, "run", broken)
    async with camera:
        with pytest.raises(CameraError, match="camera mqtt:cam/1/jpeg failed: no such name"):
            await camera.capture()


async def eventually_published(publish, topic: str, image: bytes) -> None:
    """Publish as soon as the publisher is connected again too."""
    await publish.__self__.connected()
    await publish(topic, image)
