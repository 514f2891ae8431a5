"""A photo of a device whose name is not a DNS label gets an answer under that name, and an Event."""

import asyncio

import msgspec
import pytest

from edge.misnamed import valid_name
from schemas.codec import content_id
from schemas.messages import Result
from schemas.topics import NAME, POLICY, RELEASE, ROOT, check_device_name
from tests.conftest import DEADLINE_S, eventually
from tests.nodes import NODE, Observer, counted, edge_running, enveloped, photo, photo_id, station


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ESP32_CAM", "esp32-cam"),
        ("MyCam", "mycam"),
        ("-cam-", "cam"),
        ("Küche 1", "kuche-1"),
        ("Édge_2", "device-edge-2"),
        ("\uff23\uff41\uff4d", "cam"),  # letters of full width
        ("", "device"),
        ("___", "device"),
        ("a" * 62 + "__b", "a" * 62),
        ("x" * 200, "x" * 63),
        ("EDGE", "device-edge"),
        ("Collector_2", "device-collector-2"),
        ("Home Assistant", "home-assistant"),
        ("homeassistant", "device-homeassistant"),
    ],
)
def test_the_nearest_name_is_valid(name, label):
    """It is a DNS label that people recognise, and no reserved name, which would be refused next."""
    assert valid_name(name) == label
    assert check_device_name(label) == label
    assert NAME.fullmatch(label)


async def test_a_misnamed_device_is_answered_on_its_own_topic(config):
    """With the sender's id where it can be read, on the topic that the sender derives from its name."""
    names = ("ESP32_CAM", "MyCam", "")
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            for number, name in enumerate(names):
                await seen.bus.publish_bytes(f"{ROOT}/photo/{NODE}/{name}", photo(1))
                payload = enveloped(number, photo(1), "pi-1")
                await seen.bus.publish_bytes(f"{ROOT}/photo/{NODE}/{name}", payload)
            answers: dict[str, list[Result]] = {}
            while sum(map(len, answers.values())) < 2 * len(names):
                message = await seen.raw_results.get()
                result = msgspec.json.decode(message.payload, type=Result)
                answers.setdefault(message.topic.removeprefix(f"{ROOT}/result/{NODE}/"), []).append(result)
            await eventually(lambda: len(seen.events) >= len(names))
        counters = await counted(seen)
    assert set(answers) == set(names)
    for number, name in enumerate(names):
        assert [one.photo_id for one in answers[name]] == [content_id(photo(1)), photo_id(number)]
        assert {(one.status, one.code) for one in answers[name]} == {("rejected", "malformed-message")}
        assert repr(name) in answers[name][0].reason
        assert valid_name(name) in answers[name][0].reason
    events = [event for event in seen.events if event.event == "photo.misnamed"]
    assert [event.reason for event in events] == [answers[name][0].reason for name in names]
    assert counters["photo.misnamed"] == counters["bus.unmatched"] == 2 * len(names)


async def test_a_topic_without_a_device_or_with_more_levels_is_answered(config):
    """On the topic that its sender derives from its own, once, with a reason and what to change."""
    answers: dict[str, Result] = {}
    seen = Observer(config.broker)
    answered = seen.bus.subscribe_raw(f"{ROOT}/result/{NODE}/#")
    async with seen.watching(), edge_running(config), asyncio.timeout(DEADLINE_S):
        await seen.status("online")
        for rest in ("", "/x/y", "/x/y/Z_1"):
            await seen.bus.publish_bytes(f"{ROOT}/photo/{NODE}{rest}", photo(1))
        await seen.send(enveloped(2, photo(2)))
        await seen.answer(photo_id(2))
        while len(answers) < 3:
            message = await answered.get()
            result = msgspec.json.decode(message.payload, type=Result)
            if result.status == "rejected":
                answers[message.topic.removeprefix(f"{ROOT}/result/{NODE}")] = result
    assert [answers[rest].photo_id for rest in ("", "/x/y", "/x/y/Z_1")] == [content_id(photo(1))] * 3
    assert f"{ROOT}/photo/{NODE}/NAME" in (answers[""].reason or "")
    assert "'x-y-z-1'" in (answers["/x/y/Z_1"].reason or "")


async def test_a_label_of_a_misnamed_device_is_reported(config):
    """It gets an Event with the name to use, and a counter that `gleaner doctor` shows."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.bus.publish_bytes(f"{ROOT}/feedback/{NODE}/ESP32_CAM", b"{}")
            await eventually(lambda: bool(seen.events))
        counters = await counted(seen)
    assert [event.event for event in seen.events] == ["photo.misnamed"]
    assert "'esp32-cam'" in (seen.events[0].reason or "")
    assert (counters["feedback.misnamed"], counters.get("photo.misnamed", 0)) == (1, 0)


async def test_a_reserved_name_is_refused(config):
    """A device with the name of a component must take another one; its photo is not classified."""
    async with station(config) as seen:
        for name in ("edge", "edge-2", "collector", "operator"):
            await seen.send(enveloped(3, photo(3), name), name)
            answer = await seen.answer(photo_id(3), name)
            assert (answer.status, answer.code) == ("rejected", "malformed-message")
            assert "reserved" in (answer.reason or "")


async def test_a_malformed_policy_is_counted(config):
    """`gleaner doctor` shows the counter; the rules stay as they are."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.bus.publish_bytes(POLICY.name(node=NODE), b'{"harvest": {"caps": {"per_hour": -1}}}')
            await seen.send(enveloped(1, photo(1)))
            assert (await seen.answer(photo_id(1))).status == "ok"
        counters = await counted(seen)
    assert counters["policy.malformed"] == 1


async def test_an_empty_retained_message_means_none(config):
    """The policy goes back to the configured rules, and a release stays in service, without an event."""
    async with station(config) as seen:
        harvest = {"v": 1, "node": NODE, "harvest": {"auto": False, "near_duplicate_s": 0, "audit_share": 0}}
        await seen.bus.publish_bytes(POLICY.name(node=NODE), msgspec.json.encode(harvest), retain=True)
        number = 0

        async def harvested_as(wanted: str) -> bool:
            nonlocal number
            number += 1
            await seen.send(enveloped(number, photo(number, "red")))
            return (await seen.answer(photo_id(number))).harvest == wanted

        while not await harvested_as("auto-off"):
            pass
        await seen.bus.publish_bytes(RELEASE.name(node=NODE), b"", retain=True)
        await seen.bus.publish_bytes(POLICY.name(node=NODE), b"", retain=True)
        while not await harvested_as("auto"):
            pass
        assert seen.events == []
