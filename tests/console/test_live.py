"""Rules of console/live: open pages follow what happens, and nothing grows without a bound."""

import asyncio

import pytest

from bus.mqtt.presence import now_ms
from console.live import recent_answers
from console.live.broadcast import KINDS, MAX_STREAMS, Broadcast, TooManyStreamsError
from console.live.photo_previews import PhotoPreviews
from console.live.recent_answers import MAX_PER_NODE, RecentAnswers
from console.live.state import ANSWERS_PER_DEVICE, MAX_DEVICES, MAX_EVENTS, LiveState
from schemas.codec import encode
from schemas.messages import Event, Forget, Photo, Result
from schemas.topics import PHOTO
from tests.conftest import jpeg


def result(**fields) -> Result:
    made = {"photo_id": "0" * 32, "node": "edge-1", "device": "pi-1", "status": "ok", "label": "cat"}
    return Result(**made | {"answered_at_ms": now_ms()} | fields)


def test_answers_are_bounded_by_device_and_number():
    """The newest answers of the devices that spoke last are kept; a redelivery does not count twice."""
    state = LiveState()
    for number in range(ANSWERS_PER_DEVICE + 3):
        state.add_result(result(photo_id=f"{number:032x}"))
    state.add_result(result(photo_id=f"{ANSWERS_PER_DEVICE + 2:032x}"))
    state.add_result(result(photo_id="f" * 32, status="deferred", label=None))
    ((_, answers),) = state.answers.items()
    assert [int(one.photo_id, 16) for one in answers] == list(range(ANSWERS_PER_DEVICE + 2, 2, -1))
    for number in range(MAX_DEVICES):
        state.add_result(result(device=f"d-{number}"))
    assert len(state.answers) == MAX_DEVICES
    assert next(iter(state.answers)).device == "d-0"


def test_a_busy_node_takes_no_answers_from_a_quiet_one():
    """The preview of a policy is about the last answers of its own node, however much the others answer."""
    state = LiveState()
    state.add_result(result(node="quiet"))
    for number in range(MAX_PER_NODE + 5):
        state.add_result(result(node="busy", photo_id=f"{number:032x}"))
    assert [one.node for one in state.recent.of("quiet")] == ["quiet"]
    assert [int(one.photo_id, 16) for one in state.recent.of("busy")] == list(range(5, MAX_PER_NODE + 5))


def test_answers_for_previews_are_bounded(monkeypatch):
    """Of all nodes together too: the one with the most loses its oldest; a silent node makes room."""
    monkeypatch.setattr(recent_answers, "MAX_ANSWERS", 10)
    monkeypatch.setattr(recent_answers, "MAX_NODES", 3)
    recent = RecentAnswers()
    for node in ("quiet", *["busy"] * 20, "third"):
        recent.add(result(node=node))
    assert [len(recent.of(node)) for node in ("quiet", "busy", "third")] == [1, 8, 1]
    recent.add(result(node="fourth"))
    assert (len(recent), recent.of("quiet")) == (9, [])


def test_events_are_bounded():
    """The newest are kept, newest first."""
    state = LiveState()
    for number in range(MAX_EVENTS + 5):
        state.add_event(Event(node="cloud", name="trainer", event="round.started", at_ms=number))
    assert (len(state.events), state.events[0].at_ms) == (MAX_EVENTS, MAX_EVENTS + 4)


async def test_a_picture_that_passed_by_is_dropped_by_order():
    """By the photo's id; of a camera or a node that is forgotten, all of its pictures, and no other's."""
    previews = PhotoPreviews()
    for number, camera in enumerate(("edge-1/pi-1", "edge-1/pi-2", "edge-2/pi-1", "edge-3/pi-1")):
        node, _, device = camera.partition("/")
        image = jpeg(number)
        photo = Photo(photo_id=f"{number:032x}", node=node, device=device, image=image)
        topic = PHOTO.name(node=node, device=device)
        assert await previews.add(topic, encode(PHOTO, photo))

    def order(node: str, **fields: object) -> set[int]:
        previews.obey(node, Forget(node=node, order_id="0" * 32, at_ms=1, **fields))
        return {int(one, 16) for one in previews.kept()}

    assert order("edge-1", photo_ids=[f"{3:032x}"]) == {0, 1, 2}
    assert order("edge-1", devices={"pi-1": 5}) == {1, 2}
    assert order("edge-2", before_ms=5) == {1}
    previews.forget([f"{1:032x}", "f" * 32])
    assert previews.kept() == set()


async def test_changes_are_told_together():
    """Of many changes, a page gets each kind once until it listens again."""
    broadcast = Broadcast()
    with broadcast.stream() as stream:
        events = stream.events()
        assert b"event: open" in await anext(events)
        for _ in range(1000):
            broadcast.changed("results")
            broadcast.changed("events")
        assert await anext(events) == b"event: results\ndata:\n\nevent: events\ndata:\n\n"
        broadcast.close()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    await asyncio.sleep(0)


async def test_a_page_learns_what_changed_while_it_was_made():
    """A stream begins with what changed since the page was asked for; after a restart that is everything."""
    broadcast = Broadcast()
    broadcast.changed("results")
    before = broadcast.sequence
    broadcast.changed("events")
    for since, told in ((before, [b"events"]), (before + 99, [kind.encode() for kind in KINDS])):
        with broadcast.stream(since) as stream:
            events = stream.events()
            await anext(events)
            assert await anext(events) == b"".join(b"event: %s\ndata:\n\n" % kind for kind in told)


def test_streams_are_bounded():
    """A page beyond the bound is refused, and there is room again when one is closed."""
    broadcast = Broadcast()
    streams = [broadcast.stream() for _ in range(MAX_STREAMS)]
    for one in streams:
        one.__enter__()
    with pytest.raises(TooManyStreamsError), broadcast.stream():
        pass
    streams[0].__exit__(None, None, None)
    with broadcast.stream():
        assert len(broadcast) == MAX_STREAMS


def test_a_large_message_takes_no_room_for_long():
    """Of an event with many facts the event is kept, and of an answer all but the scores."""
    state = LiveState()
    facts = {str(number): "x" * 4000 for number in range(64)}
    state.add_event(Event(node="edge-1", name="pi-1", event="test.happened", at_ms=1, facts=facts))
    state.add_event(Event(node="edge-1", name="pi-1", event="test.happened", at_ms=1, facts={"a": "b"}))
    assert [one.facts for one in state.events] == [{"a": "b"}, {}]
    state.add_result(result(scores={str(number): 0.0 for number in range(1000)}))
    assert [one.scores for one in state.latest()] == [None]
