"""KubeEdge's device twins follow the device statuses."""

import asyncio
import re

import msgspec
import pytest
from hypothesis import given

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from edge.kubeedge.device_twins import TwinPublisher, messages, twin
from schemas.messages import ServedModel, Status
from schemas.topics import STATUS
from tests.conftest import DEADLINE_S, running
from tests.schemas.strategies import messages as any_message

NODE = "edge-1"
# What KubeEdge accepts: edge/pkg/devicetwin of 1.23.
KEY = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,128}")
VALUE = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,512}")
STATES = {"online", "offline", "ok", "unknown", "unhealthy"}


def status(name: str = "pi-1", state: str = "online", software: str = "1.0", **facts: object) -> Status:
    return Status(
        node=NODE,
        name=name,
        state=state,
        at_ms=1,
        since_ms=1,
        software=software,
        run_id="r",
        **facts,  # type: ignore[arg-type]  # a test's own words
    )


@given(any_status=any_message(Status))
def test_kubeedge_accepts_the_twin_of_any_status(any_status):
    """States, names and values have only characters that KubeEdge accepts."""
    current = twin(any_status, 2**53)
    assert current.state in STATES
    for name, value in current.properties.items():
        assert KEY.fullmatch(name)
        assert VALUE.fullmatch(value)


def test_a_device_has_its_own_topics():
    """State and properties go to the topics of the Device `node.device` in our namespace."""
    updates = messages(NODE, "pi-1", twin(status(), 3))
    prefix = "$hw/events/device/gleaner/edge-1.pi-1"
    assert set(updates) == {f"{prefix}/state/update", f"{prefix}/twin/update"}
    assert msgspec.json.decode(updates[f"{prefix}/state/update"])["state"] == "online"
    properties = msgspec.json.decode(updates[f"{prefix}/twin/update"])["twin"]
    assert properties["model-version"]["actual"]["value"] == "3"


@pytest.mark.parametrize(("state", "expected"), [("degraded", "unhealthy"), ("offline", "offline")])
def test_states_have_kubeedges_names(state, expected):
    """A degraded device is unhealthy in Kubernetes."""
    assert twin(status(state=state), None).state == expected


async def test_a_device_older_than_its_edge_is_published(address):
    """Retained statuses are published when the edge starts, without waiting for the next ones."""
    devices = Bus(address, transient_client_id("devices"))
    seen = devices.subscribe_raw("$hw/#")
    async with running(devices):
        await devices.publish(STATUS, status(), node=NODE, name="pi-1")
        bus = Bus(address, transient_client_id("edge"), presence=Presence(NODE, "edge"))
        following = asyncio.create_task(TwinPublisher(bus, NODE).run())
        async with running(bus), asyncio.timeout(DEADLINE_S):
            assert (await seen.get()).topic.endswith("edge-1.pi-1/state/update")
        following.cancel()


async def test_changes_are_published_twice_and_nothing_else(address):
    """Over a real broker: start, new model and end of a device, not each of its statuses."""
    bus, devices = Bus(address, transient_client_id("edge")), Bus(address, transient_client_id("devices"))
    seen = devices.subscribe_raw("$hw/#")
    following = asyncio.create_task(TwinPublisher(bus, NODE).run())
    served = ServedModel(name="pets", version=2, state="available")
    async with running(bus, devices):
        for one in (
            *[status()] * 4,
            status("edge", model=served),
            *[status()] * 4,
            status("model-server"),
            status("edge-2"),
            status(state="offline"),
        ):
            await devices.publish(STATUS, one, node=NODE, name=one.name)
        async with asyncio.timeout(DEADLINE_S):
            updates = [msgspec.json.decode((await seen.get()).payload) for _ in range(10)]
    following.cancel()
    assert [one["state"] for one in updates if "state" in one] == ["online"] * 4 + ["offline"]
    assert ["model-version" in one["twin"] for one in updates if "twin" in one] == [False] * 2 + [True] * 3
    assert seen.empty()
