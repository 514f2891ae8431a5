import asyncio

import pytest

from bus.mqtt.presence import now_ms
from device.cameras.base import CameraError
from device.cameras.newest import NewestPicture


@pytest.fixture
async def now():
    """The loop's clock."""
    return asyncio.get_running_loop().time


async def waits(newest: NewestPicture, **limits: float) -> asyncio.Task:
    """Start to take a picture, and check that there is none yet."""
    taking = asyncio.create_task(newest.take(**limits))
    for _ in range(3):
        await asyncio.sleep(0)  # the task runs until it waits
    assert not taking.done()
    return taking


async def test_a_picture_that_has_been_held_for_long_is_not_taken(now):
    """A stream that stalled gives its next picture, and not the one from before."""
    newest = NewestPicture("cam")
    newest.put(b"old", began_at=now() - 10, arrived_at=now() - 9)
    taking = await waits(newest)
    newest.put(b"new", began_at=now(), arrived_at=now())
    assert (await taking).image == b"new"


async def test_a_picture_that_took_long_to_arrive_is_taken_and_says_so(now):
    """What counts is when it was complete; its time is that of its beginning."""
    newest = NewestPicture("cam")
    newest.put(b"slow", began_at=now() - 100, arrived_at=now())
    frame = await newest.take()
    assert (frame.image, frame.source) == (b"slow", "cam")
    assert now_ms() - 160_000 < frame.taken_at_ms <= now_ms() - 100_000


async def test_a_picture_of_any_age_can_be_asked_for_but_only_once(now):
    """A source that sends seldom is not waited for while it has something new."""
    newest = NewestPicture("cam")
    newest.put(b"first", began_at=now() - 99, arrived_at=now() - 99)
    newest.put(b"second", began_at=now() - 98, arrived_at=now() - 98)
    assert (await newest.take(float("inf"))).image == b"second"
    (await waits(newest, fresh_s=float("inf"))).cancel()


async def test_a_failure_ends_the_wait(now):
    """A picture that arrived before the failure is taken first."""
    newest = NewestPicture("cam")
    newest.put(b"last", began_at=now(), arrived_at=now())
    newest.fail(CameraError("ended"))
    assert (await newest.take()).image == b"last"
    with pytest.raises(CameraError, match="ended"):
        await newest.take()
