"""The fair queue is bounded, and devices take turns."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.scheduling.bounds import Bounds, Shed
from edge.scheduling.cost import EXPENSIVE_MS
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto
from schemas.messages import Photo
from tests.conftest import DEADLINE_S
from tests.nodes import NODE, photo_id

ROOMY = Bounds(per_device=100, photos=1000, image_bytes=1_000_000)


def entry(number: int, device: str = "pi-1", size_bytes: int = 10, **fields: object) -> InFlightPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device=device, image=bytes(size_bytes), **fields)
    return InFlightPhoto(photo, lambda: None, 0.0)


def arrive(queue: FairQueue, *entries: InFlightPhoto) -> list[Shed]:
    """Admit and enqueue photos; return those that were shed."""
    shed = []
    for one in entries:
        shed += queue.admit(one)
        if one in queue:
            queue.enqueue(one)
    return shed


async def answer_batch(queue: FairQueue, limit: int = 16, per_device: int = 1) -> list[tuple[str, int]]:
    """Take a batch, answer it, and return its devices and numbers."""
    batch = await queue.next_batch(limit, per_device)
    queue.batch_done(batch)
    for one in batch:
        queue.remove(one)
    return [(one.photo.device, int(one.photo.photo_id, 16)) for one in batch]


async def test_devices_take_turns():
    """Behind a hundred photos of one device, another's first photo is in the next batch."""
    queue = FairQueue(ROOMY)
    arrive(queue, *(entry(number, "flood") for number in range(100)))
    assert await answer_batch(queue) == [("flood", 0)]
    arrive(queue, entry(1, "calm"), entry(2, "calm"))
    assert await answer_batch(queue) == [("flood", 1), ("calm", 1)]
    assert await answer_batch(queue) == [("flood", 2), ("calm", 2)]
    assert await answer_batch(queue, per_device=3) == [("flood", 3), ("flood", 4), ("flood", 5)]


async def test_the_next_batch_continues_with_the_next_device():
    """If a batch is smaller than the number of devices, the next one starts where it ended."""
    queue = FairQueue(ROOMY)
    arrive(queue, *(entry(number, f"pi-{number % 5}") for number in range(10)))
    batches = [await answer_batch(queue, limit=2) for _ in range(5)]
    assert [number for batch in batches for _, number in batch] == list(range(10))


async def test_a_device_is_in_one_batch_at_a_time():
    """While a batch is being classified, the next one is of other devices."""
    queue = FairQueue(ROOMY)
    arrive(queue, *(entry(number, "flood") for number in range(9)), entry(9, "calm"), entry(10, "calm"))
    first = await queue.next_batch(2, 2)
    assert [one.photo.device for one in first] == ["flood", "calm"]
    queue.batch_done(first[1:])
    second = await queue.next_batch(2, 2)
    assert [one.photo.device for one in second] == ["calm"]
    queue.batch_done(first)
    assert (await queue.next_batch(2, 1))[0].photo.device == "flood"


async def test_a_flooding_device_pauses_while_others_are_active():
    """After a call of 0.2 s it pauses for 0.6 s; if no other device is active, it does not."""
    now = 0.0
    queue = FairQueue(Bounds(per_device=3, photos=100, image_bytes=1000), clock=lambda: now)
    arrive(queue, *(entry(number, "flood") for number in range(4)))
    assert await answer_batch(queue) == [("flood", 0)], "no other device is active"
    arrive(queue, entry(0, "calm"), entry(4, "flood"), entry(5, "flood"))
    batch = await queue.next_batch(16, 1)
    assert [one.photo.device for one in batch] == ["flood", "calm"]
    now = 0.2
    queue.batch_done(batch)
    arrive(queue, entry(1, "calm"), entry(2, "calm"))
    assert await answer_batch(queue) == [("calm", 1)]
    assert (await queue.next_batch(16, 1))[0].photo.device == "calm"
    now = 0.79
    assert queue._take_batch(16, 1) == []
    now = 0.81
    assert await answer_batch(queue) == [("flood", 2)]


async def test_the_end_of_a_pause_wakes_the_next_batch():
    """`next_batch` returns when a pause ends, although no photo arrives."""
    queue = FairQueue(Bounds(per_device=2, photos=100, image_bytes=1000))
    arrive(queue, entry(0, "calm"), *(entry(number, "flood") for number in range(3)))
    await answer_batch(queue)
    async with asyncio.timeout(DEADLINE_S):
        assert await answer_batch(queue) == [("flood", 1)]


async def test_nothing_wakes_an_empty_queue_after_a_pause():
    """After a flood and before the next photo, an ended pause causes no delay."""
    now, reads = 0.0, 0

    def clock() -> float:
        nonlocal reads
        reads += 1
        return now

    queue = FairQueue(Bounds(per_device=1, photos=100, image_bytes=1000), clock=clock)
    arrive(queue, entry(0, "calm"), entry(0, "flood"), entry(1, "flood"))
    batch = await queue.next_batch(16, 1)
    assert [one.photo.device for one in batch] == ["calm", "flood"]
    now = 0.2
    queue.batch_done(batch)
    for one in batch:
        queue.remove(one)
    now, reads = 10.0, 0
    waiting = asyncio.create_task(queue.next_batch(16, 1))
    for _ in range(100):
        await asyncio.sleep(0)
    assert reads < 10
    arrive(queue, entry(2, "flood"))
    assert [one.photo.device for one in await waiting] == ["flood"]


async def test_live_photos_precede_historical_ones():
    """Live photos of all devices go first, with one historical photo in each batch."""
    queue = FairQueue(ROOMY)
    arrive(queue, *(entry(number, "old", historical=True) for number in range(4)))
    arrive(queue, *(entry(number, f"pi-{number}") for number in range(10, 14)))
    assert await answer_batch(queue, limit=3) == [("pi-10", 10), ("pi-11", 11), ("old", 0)]
    assert await answer_batch(queue, limit=3) == [("pi-12", 12), ("pi-13", 13), ("old", 1)]
    assert await answer_batch(queue, limit=3, per_device=2) == [("old", 2), ("old", 3)]


async def test_a_historical_photo_that_must_wait_holds_up_no_live_one():
    """While its decoder is taken, its turn goes to live photos: nothing else would wake the next batch."""
    queue = FairQueue(ROOMY)
    slow, old = entry(0, "slow"), entry(1, "old", historical=True)
    slow.cost_ms = old.cost_ms = 10 * EXPENSIVE_MS
    arrive(queue, slow)
    decoding = await queue.next_batch(16, 1)
    arrive(queue, old)
    async with asyncio.timeout(DEADLINE_S):
        for number in range(2, 22):
            arrive(queue, entry(number, "calm"))
            assert await answer_batch(queue) == [("calm", number)]
    queue.batch_done(decoding)
    assert await answer_batch(queue) == [("old", 1)]


def test_a_photo_beyond_its_devices_share_is_shed():
    """The reason names the device and the limit."""
    queue = FairQueue(Bounds(per_device=3, photos=100, image_bytes=10_000))
    assert not arrive(queue, *(entry(number) for number in range(3)), entry(9, "pi-2"))
    (shed,) = arrive(queue, entry(3))
    assert shed.entry.photo.photo_id == photo_id(3)
    assert "pi-1 has 3 photos in flight" in shed.reason
    assert "again later" in shed.reason
    assert len(queue) == 4


async def test_a_published_answer_frees_its_share():
    """A device with a window of `per_device` photos is not shed when it sends the next one.

    It may have the answer before the broker confirmed it to the edge; until then the photo stays in flight.
    """
    queue = FairQueue(Bounds(per_device=2, photos=3, image_bytes=1000))
    first, second, third, fourth = (entry(number) for number in range(1, 5))
    assert arrive(queue, first, second) == []
    await queue.next_batch(2, 1)
    queue.release_share(first)
    assert arrive(queue, third) == []
    assert queue.is_redelivery(entry(1))
    queue.release_share(second)
    assert [shed.entry for shed in arrive(queue, fourth)] == [fourth], "the bound for all devices holds"
    queue.remove(first)
    assert arrive(queue, fourth) == []
    assert (len(queue), queue.image_bytes) == (3, 30)


def test_when_full_the_device_with_most_in_flight_is_shed():
    """A new device is admitted, and the newest photo of the device with most in flight is shed."""
    queue = FairQueue(Bounds(per_device=10, photos=10, image_bytes=10_000))
    assert not arrive(queue, *(entry(number, "a") for number in range(6)))
    assert not arrive(queue, *(entry(number, "b") for number in range(4)))
    (shed,) = arrive(queue, entry(1, "calm"))
    assert shed.entry.key == ("a", photo_id(5))
    assert "a has the most photos in flight" in shed.reason
    (shed,) = arrive(queue, entry(9, "a"))
    assert shed.entry.key == ("a", photo_id(9))


def test_bytes_are_bounded_too():
    """If the bytes exceed their bound, the device with most bytes is shed, however few its photos."""
    queue = FairQueue(Bounds(per_device=10, photos=100, image_bytes=1000))
    assert not arrive(queue, entry(1, "a", 600), entry(2, "b", 100), entry(3, "b", 100))
    (shed,) = arrive(queue, entry(4, "calm", 300))
    assert shed.entry.key == ("a", photo_id(1))
    assert queue.image_bytes == 500


def test_a_redelivered_photo_is_in_flight_once():
    """The older delivery is acknowledged at once, the newest one with the answer."""
    queue, acked = FairQueue(ROOMY), []
    first, second = entry(1), entry(1)
    first.ack, second.ack = lambda: acked.append("first"), lambda: acked.append("second")
    assert not queue.is_redelivery(first)
    arrive(queue, first)
    assert queue.is_redelivery(second)
    assert (len(queue), acked) == (1, ["first"])
    first.ack()
    assert acked == ["first", "second"]


def test_expired_photos_are_dequeued_once_and_stay_in_flight():
    """Live and historical ones, until they are answered."""
    queue = FairQueue(ROOMY)
    late = [entry(1, expires_at_ms=5), entry(2, "pi-2", expires_at_ms=5, historical=True)]
    arrive(queue, *late, entry(3), entry(4, expires_at_ms=50))
    assert queue.dequeue_expired(6) == late
    assert queue.dequeue_expired(6) == []
    assert [one.photo.photo_id for one in queue.queued()] == [photo_id(3), photo_id(4)]
    assert len(queue) == 4


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
    """The bounds hold, and each photo is exactly one of shed, taken, expired or queued."""
    bounds = Bounds(per_device=5, photos=12, image_bytes=1000)
    queue, ends, out, arrived = FairQueue(bounds), Counter(), [], []
    for number, (step, one, two, historical) in enumerate(steps):
        if step == "arrive":
            expires_at_ms = 5 if number % 3 == 0 else None
            arrived.append(entry(number, one, two, historical=historical, expires_at_ms=expires_at_ms))
            ends.update(shed.entry.key for shed in arrive(queue, arrived[-1]))
        elif step == "take" and (batch := queue._take_batch(one, two)):
            queue._busy_since.update((taken.photo.device, 0.0) for taken in batch)
            out.append(batch)
            ends.update(taken.key for taken in batch)
            assert max(Counter(taken.photo.device for taken in batch).values()) <= two + 1
        elif step == "answer" and out:
            batch = out.pop(0)
            queue.batch_done(batch)
            for taken in batch:
                queue.remove(taken)
        elif step == "expire":
            for late in queue.dequeue_expired(6):
                ends[late.key] += 1
                queue.remove(late)
        in_flight = Counter(key[0] for key in queue._in_flight)
        assert all(count <= bounds.per_device for count in in_flight.values())
        assert len(queue) <= bounds.photos
        assert queue.image_bytes <= bounds.image_bytes
        assert queue.image_bytes == sum(len(one.photo.image) for one in queue._in_flight.values())
    left = Counter(one.key for one in queue.queued())
    assert ends + left == Counter(one.key for one in arrived)


@given(counts=st.dictionaries(devices, st.integers(1, 8), min_size=2), limit=st.integers(2, 6))
def test_no_device_is_skipped(counts, limit):
    """Between two photos of one device, every other queued device has one."""
    queue = FairQueue(ROOMY)
    for device, count in counts.items():
        arrive(queue, *(entry(number, device) for number in range(count)))
    order = []
    while batch := queue._take_batch(limit, 1):
        order += [one.photo.device for one in batch]
    left = dict(counts)
    last: dict[str, int] = {}
    for position, device in enumerate(order):
        left[device] -= 1
        between = order[last.get(device, -1) + 1 : position]
        assert all(other in between for other in counts if other != device and left[other] and device in last)
        last[device] = position


async def test_repetitions_of_answered_photos_shed_no_new_one():
    """A sender whose window is the share repeats what was answered meanwhile, and its new photos stay."""
    queue = FairQueue(Bounds(per_device=4, photos=100, image_bytes=1000))
    assert arrive(queue, *(entry(number) for number in range(4))) == []
    assert await answer_batch(queue) == [("pi-1", 0)]
    assert arrive(queue, entry(0)) == [], "sent again before its answer arrived"
    assert arrive(queue, entry(4)) == [], "the sender has the answer, so that it may send the next photo"
    assert len(arrive(queue, entry(5))) == 1


async def test_repetitions_are_bounded():
    """Answered photos that are sent again and again take at most another share."""
    queue = FairQueue(Bounds(per_device=4, photos=100, image_bytes=10_000))
    for number in range(20):
        arrive(queue, entry(number))
        await answer_batch(queue)
    shed = arrive(queue, *(entry(number) for number in range(20)))
    assert len(queue) == 8
    assert len(shed) == 12


def costing(cost_ms: float, number: int, device: str, **fields: object) -> InFlightPhoto:
    one = entry(number, device, **fields)
    one.cost_ms = cost_ms
    return one


async def test_g4_a_cheap_photo_finds_a_free_call_while_expensive_ones_are_decoded():
    """Of ten devices with expensive photos one at a time has a call, in a batch or alone; then the next."""
    queue = FairQueue(ROOMY)
    arrive(queue, *(costing(300, number, f"hostile-{number}") for number in range(10)))
    first = await queue.next_batch(16, 1)
    assert [one.photo.device for one in first] == ["hostile-0"]
    queue.isolate("hostile-5")
    arrive(queue, costing(1, 1, "calm"))
    async with asyncio.timeout(DEADLINE_S):
        assert [one.photo.device for one in await queue.next_batch(16, 1)] == ["calm"]
    waiting = asyncio.create_task(queue.next_alone(lambda: False))
    also_waiting = asyncio.create_task(queue.next_batch(16, 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not also_waiting.done()
    queue.batch_done(first)
    async with asyncio.timeout(DEADLINE_S):
        done, _ = await asyncio.wait({waiting, also_waiting}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0)
    assert len([task for task in (waiting, also_waiting) if task.done()]) == len(done) == 1
    if waiting.done():
        queue.alone_done("hostile-5", answered=True)
    else:
        queue.batch_done(also_waiting.result())
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(waiting, also_waiting)


async def test_a_photo_that_is_still_decoded_after_its_deadline_leaves_the_turn_to_others():
    """Meanwhile only photos of the least suspected devices begin, so it does not hold up all."""
    queue = FairQueue(ROOMY)
    arrive(queue, costing(300, 1, "stuck"), costing(300, 2, "other"))
    queue.isolate("stuck")
    assert (await queue.next_alone(lambda: False)).photo.device == "stuck"
    queue.end_expensive("stuck")
    async with asyncio.timeout(DEADLINE_S):
        assert [one.photo.device for one in await queue.next_batch(16, 1)] == ["other"]


async def test_devices_share_the_cost_and_not_the_number():
    """While cheap photos wait, a device whose photos cost four turns has every fourth."""
    queue = FairQueue(ROOMY)
    for number in range(12):
        arrive(queue, costing(5, number, "cheap"), costing(95, number, "costly"), costing(5, number, "other"))
    turns = [[device for device, _ in await answer_batch(queue)] for _ in range(12)]
    assert {"cheap", "other"} <= {device for turn in turns for device in turn}
    count = Counter(device for turn in turns for device in turn)
    assert count["cheap"] == count["other"] > count["costly"] >= 12 // 4


async def test_what_nobody_else_waits_for_is_not_delayed():
    """A costly photo has its turn at once when no other photo can have it."""
    queue = FairQueue(ROOMY)
    arrive(queue, costing(1000, 1, "costly"))
    assert await answer_batch(queue) == [("costly", 1)]


async def test_an_unlike_historical_photo_is_not_passed_over_for_ever():
    """A backlog of large photos gets through among small live ones."""
    queue = FairQueue(ROOMY)
    arrive(queue, costing(90, 1, "late", historical=True))
    for number in range(20):
        arrive(queue, costing(1, number, "live"))
        if ("late", 1) in await answer_batch(queue):
            break
    assert 0 < number < 12
