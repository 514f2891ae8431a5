"""Rules of edge/homeassistant/announcer.py, on a real broker."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence, now_ms
from edge.config import EdgeConfig
from edge.homeassistant import announcer, discovery
from edge.homeassistant.announcer import Announcer, Seen, is_forgotten
from schemas.messages import Photo, Result, ServedModel
from schemas.topics import RELEASE, STATUS
from tests.conftest import eventually, running
from tests.nodes import NODE, photo_id

NOW_MS = 1_790_000_000_000


def answer(device="hall", number=1, status="ok"):
    picture = Photo(photo_id=photo_id(number), node=NODE, device=device, image=b"picture %d" % number)
    facts = {"label": "cat", "confidence": 0.9, "model_version": 1} if status == "ok" else {"reason": "full"}
    result = Result(
        photo_id=photo_id(number), node=NODE, device=device, status=status, answered_at_ms=now_ms(),
        edge_ms=1.0, **facts,
    )  # fmt: skip
    return picture, result


class House:
    """Keeps what is retained, as Home Assistant would see it."""

    def __init__(self, address):
        self.bus = Bus(address, transient_client_id("house"))
        self._queues = [
            self.bus.subscribe_raw(name) for name in ("homeassistant/#", "gleaner/homeassistant/#")
        ]
        self.kept: dict[str, bytes] = {}
        self.count = 0

    async def read(self, queue):
        while True:
            message = await queue.get()
            self.count += message.topic.endswith("/config")
            self.kept[message.topic] = message.payload

    def known(self, device):
        """Return the entities of a device."""
        prefix = f"gleaner_{NODE}_{device}"
        return {topic for topic, payload in self.kept.items() if prefix in topic and payload}

    def result(self, device):
        payload = self.kept.get(discovery.result_topic(NODE, device))
        return json.loads(payload) if payload else None


@pytest.fixture
async def house(address):
    house = House(address)
    async with running(house.bus):
        tasks = [asyncio.create_task(house.read(queue)) for queue in house._queues]
        yield house
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def announcing(address, **changes):
    config = EdgeConfig(node=NODE, broker=address, homeassistant=True, **changes)
    bus = Bus(address, transient_client_id("edge"), presence=Presence(NODE, "edge", every_s=0.2))
    made = Announcer(config, bus)
    async with running(bus):
        task = asyncio.create_task(made.run())
        try:
            yield made, bus
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("form", "count"), [("entities", 5), ("device", 1)])
async def test_a_device_that_is_answered_is_announced(address, house, form, count):
    """Its entities, its answer and its picture are retained; a result that is not final shows nothing."""
    async with announcing(address, homeassistant_discovery=form) as (announcer, _):
        announcer.answered(*answer("hall", status="deferred"))
        announcer.answered(*answer("hall", 2))
        await eventually(lambda: discovery.image_topic(NODE, "hall") in house.kept)
        assert house.result("hall")["photo_id"] == photo_id(2)
        assert house.kept[discovery.image_topic(NODE, "hall")] == b"picture 2"
        await eventually(lambda: len(house.known("hall")) == count)


async def test_a_birth_message_is_answered_with_everything(address, house):
    """After `online` on homeassistant/status all devices and the node are announced again."""
    async with announcing(address) as (announcer, _):
        announcer.answered(*answer("hall"))
        await eventually(lambda: len(house.known("hall")) == 5)
        for topic in house.known("hall"):
            await house.bus.publish_bytes(topic, b"", retain=True)
        await eventually(lambda: not house.known("hall"))
        await house.bus.publish_bytes(discovery.BIRTH_TOPIC, b"offline")
        await house.bus.publish_bytes(discovery.BIRTH_TOPIC, b"online")
        await eventually(lambda: len(house.known("hall")) == 5)


async def test_a_device_goes_with_its_status(address, house):
    """A Status announces its device, and clearing it, as `gleaner cloud retire` does, removes all of it."""
    async with announcing(address) as (announcer, _):
        status = STATUS.name(node=NODE, name="hall")
        await house.bus.publish_bytes(status, b"{}", retain=True)
        await eventually(lambda: len(house.known("hall")) == 5)
        announcer.answered(*answer("hall"))
        await eventually(lambda: house.result("hall"))
        await house.bus.publish_bytes(status, b"", retain=True)
        await eventually(lambda: not house.known("hall") and house.result("hall") is None)


async def test_the_next_run_knows_the_devices_of_this_one(address, house):
    """A restarted edge announces retained devices again after a birth message."""
    async with announcing(address) as (announcer, _):
        announcer.answered(*answer("hall"))
        await eventually(lambda: house.result("hall"))
    for topic in house.known("hall"):
        await house.bus.publish_bytes(topic, b"", retain=True)
    await eventually(lambda: not house.known("hall"))
    async with announcing(address):
        await eventually(lambda: len(house.known("hall")) == 5)


async def test_the_update_follows_status_and_release(address, house):
    """The installed version is that of the Status, the latest that of the release; others are ignored."""
    async with announcing(address) as (_, bus):
        await bus.report(model=ServedModel(name="pets", version=3, state="available"))
        await house.bus.publish_bytes(RELEASE.name(node=NODE), b"no release")

        def shown():
            found = json.loads(house.kept.get(discovery.model_topic(NODE), b"{}"))
            return found.get("installed_version"), found.get("latest_version")

        await eventually(lambda: shown() == ("3", "3"))


async def test_g3_devices_are_bounded(address, house, monkeypatch):
    """G3: beyond the limit a device is counted and not announced; the ones before stay."""
    monkeypatch.setattr(announcer, "MAX_DEVICES", 2)
    async with announcing(address) as (made, bus):
        for name in ("a", "b", "c"):
            made.answered(*answer(name))
        await eventually(lambda: house.result("a") and house.result("b"))
        assert bus.counters["homeassistant.device_ignored"] == 1
        assert not house.known("c")


@pytest.mark.parametrize(
    ("silent_days", "earlier_days", "forgotten"),
    [
        (29, None, False),
        (31, None, True),
        (0.05, 40, False),  # after an hour of this run: the edge's clock may be wrong
        (0.9, 400, False),
        (1.1, 40, True),
        (1.1, 20, False),
        (1.1, -400, False),
        (31, 31, True),
    ],
)
def test_a_device_is_forgotten_after_30_days_of_silence(silent_days, earlier_days, forgotten):
    """By the time that passed, not by the wall clock; one of an earlier run has a day first."""
    earlier_ms = None if earlier_days is None else NOW_MS - round(earlier_days * 86_400_000)
    seen = Seen(at_s=1000.0, earlier_ms=earlier_ms)
    assert is_forgotten(seen, 1000.0 + silent_days * 86_400, NOW_MS) == forgotten


async def test_an_edge_clock_that_is_set_ahead_removes_no_device(address, house, monkeypatch):
    """Forty days ahead for some time: a device that sends stays, and so does one of an earlier run."""
    async with announcing(address) as (made, _):
        made.answered(*answer("hall"))
        await eventually(lambda: house.result("hall"))
    monkeypatch.setattr(announcer, "_CHECK_S", 0.05)
    checks = []
    monkeypatch.setattr(announcer, "now_ms", lambda: checks.append(1) or now_ms() + 40 * 86_400_000)
    async with announcing(address) as (made, _):
        made.answered(*answer("porch"))
        await eventually(lambda: house.result("porch"))
        checks.clear()
        await eventually(lambda: len(checks) > 2)
        assert {"hall", "porch"} <= set(made.devices)


async def test_nothing_is_announced_unless_asked_for():
    """Off by default: photos of a home leave the edge's own topics only if it is switched on."""
    assert EdgeConfig().homeassistant is False


@pytest.mark.parametrize(
    ("device", "payload"),
    [
        ("Front Door", b'{"answered_at_ms": 5}'),
        ("edge", b'{"answered_at_ms": 5}'),
        ("deep", b"[" * 100_000),
        ("huge", b'{"answered_at_ms": 1%s}' % (b"0" * 400)),
        ("bytes", b'{"answered_at_ms": "\xff"}'),
    ],
)
async def test_a_retained_message_of_a_stranger_stops_nothing(address, house, device, payload):
    """Where a broker asks for no certificate, anybody may retain one among the answers of earlier runs."""
    await house.bus.publish_bytes(discovery.result_topic(NODE, device), payload, retain=True)
    async with announcing(address) as (made, _):
        made.answered(*answer("hall"))
        await eventually(lambda: len(house.known("hall")) == 5)
        assert made.devices == ["hall"]
