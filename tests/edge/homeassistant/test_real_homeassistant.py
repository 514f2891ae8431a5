"""A real Home Assistant finds the devices of a real edge over a real broker."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from msgspec import structs

from device import service as device_service
from device.config import DeviceConfig
from schemas.messages import Release
from schemas.topics import RELEASE, STATUS
from tests.conftest import eventually
from tests.homeassistant import START_S, home_assistant
from tests.nodes import NODE, Observer, edge_running, enveloped, photo, photo_id

pytestmark = [pytest.mark.homeassistant, pytest.mark.timeout(900)]


@asynccontextmanager
async def agent(config, folder):
    """Run a device agent whose camera takes photos on command only."""
    photos = folder / "photos"
    photos.mkdir()
    (photos / "red.jpg").write_bytes(photo(3, "red"))
    device = DeviceConfig(
        broker=config.broker, name="porch", camera=f"folder:{photos}?loop=1", interval_s=0,
        state_dir=str(folder / "device"),
    )  # fmt: skip
    task = asyncio.create_task(device_service.run(device, lambda _: None))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_home_assistant_shows_the_devices_of_an_edge(config, tmp_path):
    """Entities appear, follow results, take photos, come back after a birth message, and go."""
    async with AsyncExitStack() as stack:
        house = stack.enter_context(home_assistant(tmp_path / "house"))
        seen = await stack.enter_async_context(Observer(config.broker).watching())
        await stack.enter_async_context(edge_running(structs.replace(config, homeassistant=True)))
        await stack.enter_async_context(agent(config, tmp_path))
        await eventually(house.answers, within_s=START_S)
        house.sign_up()
        entry = house.add_mqtt(config.broker.port)

        async def becomes(entity, state):
            await eventually(lambda: house.state(entity) == state)

        # A device that only publishes photos, as `mosquitto_pub` does.
        await seen.send(enveloped(1, picture := photo(1, "red"), device="hall"), device="hall")
        await seen.answer(photo_id(1), device="hall")
        await becomes("sensor.hall_label", "cat")
        assert 0 < float(house.state("sensor.hall_confidence")) <= 100
        assert house.states()["sensor.hall_label"]["attributes"]["photo_id"] == photo_id(1)
        await eventually(lambda: house.state("image.hall_photo") not in (None, "unknown"))
        assert house.image("image.hall_photo") == picture
        assert house.state("button.hall_take_photo") == "unavailable"  # it takes no commands
        await seen.send(enveloped(2, photo(2, "blue"), device="hall"), device="hall")
        await becomes("sensor.hall_label", "dog")

        # The agent: its button takes a photo.
        await becomes("binary_sensor.porch_problem", "off")
        assert house.state("sensor.porch_label") == "unknown"
        house.press("button.porch_take_photo")
        await becomes("sensor.porch_label", "cat")

        # The node and its model.
        await becomes(f"binary_sensor.{NODE.replace('-', '_')}_problem", "off")
        update = f"update.{NODE.replace('-', '_')}_model"
        await becomes(update, "off")
        assert house.states()[update]["attributes"]["installed_version"] == "1"
        await seen.bus.publish(RELEASE, later_release(), node=NODE)
        await becomes(update, "on")
        assert house.states()[update]["attributes"]["latest_version"] == "7"

        # Without what the broker retained, only the answer to the birth message brings the entities back.
        for topic in retained(seen):
            await seen.bus.publish_bytes(topic, b"", retain=True)
        await eventually(lambda: house.state("sensor.hall_label") is None)
        house.reload(entry)
        await becomes("sensor.hall_label", "dog")

        # A device that goes takes its entities along.
        await seen.bus.publish_bytes(STATUS.name(node=NODE, name="hall"), b"x", retain=True)
        await seen.bus.publish_bytes(STATUS.name(node=NODE, name="hall"), b"", retain=True)
        await eventually(lambda: not [name for name in house.states() if ".hall_" in name])
        assert house.state("sensor.porch_label") == "cat"


def later_release() -> Release:
    return Release(
        node=NODE, model="pets", version=7, url="file:///nowhere.tar", sha256="0" * 64, size_bytes=1,
        classes=["cat", "dog"], released_at_ms=1,
    )  # fmt: skip


def retained(seen) -> list[str]:
    """Return the discovery topics of the device `hall`, of its sensors alone."""
    return [f"homeassistant/sensor/gleaner_{NODE}_hall/{key}/config" for key in ("label", "confidence")]
