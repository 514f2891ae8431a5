import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.inference.fair_queue import Bounds, FairQueue, InFlightPhoto, Shed
from schemas.messages import Photo
from tests.nodes import NODE, photo_id

ROOMY = Bounds(per_device=100, photos=1000, image_bytes=1_000_000)


def work(number: int, device: str = "pi-1", size_bytes: int = 10, **fields: object) -> InFlightPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device=device, image=bytes(size_bytes), **fields)
    return InFlightPhoto(photo, lambda: None, 0.0)


def lined_up(waiting: FairQueue, *works: InFlightPhoto) -> list[Shed]:
    """Admit photos as they arrive; returns what gave way."""
    shed = []
    for one in works:
        shed += waiting.admit(one)
        if one in waiting:
            waiting.line_up(one)
    return shed


async def turn(waiting: FairQueue, most: int = 16, per_device: int = 1) -> list[tuple[str, int]]:
    """Take a batch, answer it, and return its devices and numbers."""
    batch = await waiting.take(most, per_device)
    waiting.free(batch)
    for one in batch:
        waiting.done(one)
    return [(one.photo.device, int(one.photo.photo_id, 16)) for one in batch]


async def test_devices_take_turns():
    """Behind a hundred photos of one device, another's first photo is in the next batch."""
    waiting = FairQueue(ROOMY)
    lined_up(waiting, *(work(number, "flood") for number in range(100)))
    assert await turn(waiting) == [("flood", 0)]
    lined_up(waiting, work(1, "calm"), work(2, "calm"))
    assert await turn(waiting) == [("flood", 1), ("calm", 1)]
    assert await turn(waiting) == [("flood", 2), ("calm", 2)]
    assert await turn(waiting, per_device=3) == [("flood", 3), ("flood", 4), ("flood", 5)]


async def test_a_full_batch_goes_on_with_those_who_had_no_turn():
    """When a batch holds fewer than there are devices, the next one starts where it ended."""
    waiting = FairQueue(ROOMY)
    lined_up(waiting, *(work(number, f"pi-{number % 5}") for number in range(10)))
    batches = [await turn(waiting, most=2) for _ in range(5)]
    assert [number for batch in batches for _, number in batch] == list(range(10))


async def test_a_device_is_in_one_batch_at_a_time():
    """While a batch is out, the next one is for the others."""
    waiting = FairQueue(ROOMY)
    lined_up(waiting, *(work(number, "flood") for number in range(9)), work(9, "calm"), work(10, "calm"))
    first = await waiting.take(2, 2)
    assert [one.photo.device for one in first] == ["flood", "calm"]
    waiting.free(first[1:])
    second = await waiting.take(2, 2)
    assert [one.photo.device for one in second] == ["calm"]
    waiting.free(first)
    assert (await waiting.take(2, 1))[0].photo.device == "flood"


async def test_a_device_that_floods_rests_while_others_are_about():
    """After a call of 0.2 s it rests for 0.6, in which the others have every turn; alone, it does not."""
    now = 0.0
    waiting = FairQueue(Bounds(per_device=3, photos=100, image_bytes=1000), clock=lambda: now)
    lined_up(waiting, *(work(number, "flood") for number in range(4)))
    assert await turn(waiting) == [("flood", 0)], "nobody else is about"
    lined_up(waiting, work(0, "calm"), work(4, "flood"), work(5, "flood"))
    batch = await waiting.take(16, 1)
    assert [one.photo.device for one in batch] == ["flood", "calm"]
    now = 0.2
    waiting.free(batch)
    lined_up(waiting, work(1, "calm"), work(2, "calm"))
    assert await turn(waiting) == [("calm", 1)]
    assert (await waiting.take(16, 1))[0].photo.device == "calm"
    now = 0.79
    assert waiting._batch(16, 1) == []
    now = 0.81
    assert await turn(waiting) == [("flood", 2)]


async def test_the_end_of_a_rest_wakes_the_next_batch():
    """A flood that waits for its turn gets it when it has rested, although nothing else happens."""
    waiting = FairQueue(Bounds(per_device=2, photos=100, image_bytes=1000))
    lined_up(waiting, work(0, "calm"), *(work(number, "flood") for number in range(3)))
    await turn(waiting)
    async with asyncio.timeout(10):
        assert await turn(waiting) == [("flood", 1)]


async def test_live_goes_before_what_was_sent_late():
    """After an outage, live photos of all devices go first, and one old photo rides along in each batch."""
    waiting = FairQueue(ROOMY)
    lined_up(waiting, *(work(number, "old", historical=True) for number in range(4)))
    lined_up(waiting, *(work(number, f"pi-{number}") for number in range(10, 14)))
    assert await turn(waiting, most=3) == [("pi-10", 10), ("pi-11", 11), ("old", 0)]
    assert await turn(waiting, most=3) == [("pi-12", 12), ("pi-13", 13), ("old", 1)]
    assert await turn(waiting, most=3, per_device=2) == [("old", 2), ("old", 3)]


def test_a_device_has_its_share_and_no_more():
    """Above the bound for one device its newest photo gives way, and the reason says whose and how many."""
    waiting = FairQueue(Bounds(per_device=3, photos=100, image_bytes=10_000))
    assert not lined_up(waiting, *(work(number) for number in range(3)), work(9, "pi-2"))
    (shed,) = lined_up(waiting, work(3))
    assert shed.work.photo.photo_id == photo_id(3)
    assert "pi-1 has 3 photos in hand" in shed.reason
    assert "again later" in shed.reason
    assert len(waiting) == 4


async def test_an_answer_on_its_way_makes_room_for_its_device():
    """A device that keeps as many unanswered as it may have in hand is never refused the next one.

    It has an answer before the broker confirmed it to us; until then the photo is still known as in hand.
    """
    waiting = FairQueue(Bounds(per_device=2, photos=3, image_bytes=1000))
    first, second, third, fourth = (work(number) for number in range(1, 5))
    assert lined_up(waiting, first, second) == []
    await waiting.take(2, 1)
    waiting.release(first)
    assert lined_up(waiting, third) == []
    assert waiting.is_redelivery(work(1))
    waiting.release(second)
    assert [shed.work for shed in lined_up(waiting, fourth)] == [fourth], "the bound for all holds"
    waiting.done(first)
    assert lined_up(waiting, fourth) == []
    assert (len(waiting), waiting.image_bytes) == (3, 30)


def test_when_all_is_full_the_greediest_gives_way():
    """Many devices together cannot keep one out: it gets its place from the one that has most."""
    waiting = FairQueue(Bounds(per_device=10, photos=10, image_bytes=10_000))
    assert not lined_up(waiting, *(work(number, "a") for number in range(6)))
    assert not lined_up(waiting, *(work(number, "b") for number in range(4)))
    (shed,) = lined_up(waiting, work(1, "calm"))
    assert shed.work.key == ("a", photo_id(5))
    assert "a has most" in shed.reason
    (shed,) = lined_up(waiting, work(9, "a"))
    assert shed.work.key == ("a", photo_id(9))


def test_bytes_are_bounded_too():
    """Large photos give way by their bytes, however few they are."""
    waiting = FairQueue(Bounds(per_device=10, photos=100, image_bytes=1000))
    assert not lined_up(waiting, work(1, "a", 600), work(2, "b", 100), work(3, "b", 100))
    (shed,) = lined_up(waiting, work(4, "calm", 300))
    assert shed.work.key == ("a", photo_id(1))
    assert waiting.image_bytes == 500


def test_a_photo_that_comes_again_is_held_once():
    """The newest delivery stands for all: the older is acknowledged, the newest with the answer."""
    waiting, acked = FairQueue(ROOMY), []
    first, second = work(1), work(1)
    first.ack, second.ack = lambda: acked.append("first"), lambda: acked.append("second")
    assert not waiting.is_redelivery(first)
    lined_up(waiting, first)
    assert waiting.is_redelivery(second)
    assert (len(waiting), acked) == (1, ["first"])
    first.ack()
    assert acked == ["first", "second"]


def test_what_expires_leaves_its_line_and_stays_in_hand():
    """Those whose time is over are given out once, in both lines; they are in hand until answered."""
    waiting = FairQueue(ROOMY)
    late = [work(1, expires_at_ms=5), work(2, "pi-2", expires_at_ms=5, historical=True)]
    lined_up(waiting, *late, work(3), work(4, expires_at_ms=50))
    assert waiting.remove_expired(6) == late
    assert waiting.remove_expired(6) == []
    assert [one.photo.photo_id for one in waiting.everyone()] == [photo_id(3), photo_id(4)]
    assert len(waiting) == 4


devices = st.sampled_from("abcd")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), devices, st.integers(0, 400), st.booleans()),
        st.tuples(st.just("take"), st.integers(2, 5), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("answer"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps=steps)
@settings(deadline=None)
def test_no_order_of_events_breaks_a_bound_or_loses_a_photo(steps):
    """Whatever happens, the bounds hold and each photo is shed, taken, expired or still waiting: just one."""
    bounds = Bounds(per_device=5, photos=12, image_bytes=1000)
    waiting, ends, out, arrived = FairQueue(bounds), Counter(), [], []
    for number, (step, one, two, historical) in enumerate(steps):
        if step == "arrive":
            expires_at_ms = 5 if number % 3 == 0 else None
            arrived.append(work(number, one, two, historical=historical, expires_at_ms=expires_at_ms))
            ends.update(shed.work.key for shed in lined_up(waiting, arrived[-1]))
        elif step == "take" and (batch := waiting._batch(one, two)):
            waiting._busy.update((taken.photo.device, 0.0) for taken in batch)
            out.append(batch)
            ends.update(taken.key for taken in batch)
            assert max(Counter(taken.photo.device for taken in batch).values()) <= two + 1
        elif step == "answer" and out:
            batch = out.pop(0)
            waiting.free(batch)
            for taken in batch:
                waiting.done(taken)
        elif step == "expire":
            for late in waiting.remove_expired(6):
                ends[late.key] += 1
                waiting.done(late)
        in_hand = Counter(key[0] for key in waiting._in_hand)
        assert all(count <= bounds.per_device for count in in_hand.values())
        assert len(waiting) <= bounds.photos
        assert waiting.image_bytes <= bounds.image_bytes
        assert waiting.image_bytes == sum(len(one.photo.image) for one in waiting._in_hand.values())
    left = Counter(one.key for one in waiting.everyone())
    assert ends + left == Counter(one.key for one in arrived)


@given(counts=st.dictionaries(devices, st.integers(1, 8), min_size=2), most=st.integers(2, 6))
def test_nobody_is_passed_over(counts, most):
    """Between two turns of one device, every other that waits has had its own."""
    waiting = FairQueue(ROOMY)
    for device, count in counts.items():
        lined_up(waiting, *(work(number, device) for number in range(count)))
    order = []
    while batch := waiting._batch(most, 1):
        order += [one.photo.device for one in batch]
    left = dict(counts)
    last: dict[str, int] = {}
    for position, device in enumerate(order):
        left[device] -= 1
        between = order[last.get(device, -1) + 1 : position]
        assert all(other in between for other in counts if other != device and left[other] and device in last)
        last[device] = position
