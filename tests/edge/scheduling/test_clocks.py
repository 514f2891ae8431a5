"""The clock of a device is only believed as far as the arrival of its photos confirms."""

import pytest

from edge.inference.validation import PhotoLimits, Rejected, validate
from edge.scheduling.clocks import MAX_SHOWN, DeviceClocks, is_expired
from schemas.messages import Photo
from tests.conftest import eventually, jpeg
from tests.nodes import NODE, enveloped, photo, photo_id, station

NOW = 1_790_000_000_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NAMES = {"node": NODE, "device": "pi-1"}
IMAGE = jpeg(1)
LIMITS = PhotoLimits(max_photo_bytes=100_000, max_pixels=1_000_000)


def taken(at_ms: int | None, *, lifetime_ms: int = 30_000, historical: bool = False) -> Photo:
    """Return a photo that a device took at a time of its clock, worth an answer for some time."""
    return Photo(
        photo_id=photo_id(1),
        node=NODE,
        device="pi-1",
        image=IMAGE,
        taken_at_ms=at_ms,
        expires_at_ms=None if at_ms is None else at_ms + lifetime_ms,
        historical=historical,
    )


def is_late(clocks: DeviceClocks, one: Photo, now_ms: int) -> bool:
    """Take a photo into account and return whether it has expired."""
    clocks.observe(one, now_ms)
    return is_expired(one, now_ms, clocks.offset_ms(one, now_ms))


@pytest.mark.parametrize(
    "offset_ms", [0, HOUR_MS, DAY_MS, 400 * DAY_MS, NOW - 5000, -HOUR_MS, -30 * 365 * DAY_MS]
)
def test_expiry_is_judged_by_age(offset_ms):
    """With any clock of the device, a photo expires its lifetime after it was taken."""
    clocks = DeviceClocks()
    clock = NOW - offset_ms  # what the device's clock shows now
    for second in range(0, 100, 5):
        now = NOW + second * 1000
        assert not is_late(clocks, taken(clock + second * 1000), now)
    late = taken(clock + 60_000)  # taken 40 s before it arrives
    assert is_late(clocks, late, NOW + 100_000)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, NOW - 5000, 20 * DAY_MS, -20 * DAY_MS])
def test_a_clock_that_jumps_costs_no_answer(jump_ms):
    """Neither the device's clock nor the edge's makes photos expire by jumping."""
    clocks = DeviceClocks()
    for second in range(5):
        assert not is_late(clocks, taken(NOW + second * 1000), NOW + second * 1000)
    for second in range(5, 10):
        assert not is_late(clocks, taken(NOW + second * 1000 - jump_ms), NOW + second * 1000)


@pytest.mark.parametrize("back_ms", [8_000, 20_000, 31_000, 60_000, 119_000])
@pytest.mark.parametrize("every_ms", [1000, 5000, 120_000])
def test_a_clock_that_is_set_back_a_little_costs_one_answer_at_most(back_ms, every_ms):
    """Two photos in a row that agree on the new offset replace the estimate; one may be a late photo."""
    clocks = DeviceClocks()
    for at_ms in range(0, 20 * every_ms, every_ms):
        assert not is_late(clocks, taken(NOW + at_ms), NOW + at_ms + 200)
    lost = 0
    for at_ms in range(20 * every_ms, 60 * every_ms, every_ms):
        one = taken(NOW + at_ms - back_ms, lifetime_ms=10_000)
        lost += is_late(clocks, one, NOW + at_ms + 200 + at_ms // every_ms % 3 * 100)
    assert lost <= 1


def test_photos_that_were_held_up_do_not_move_the_estimate():
    """A stalled connection delivers its photos at once: they expire by their age, and no more changes."""
    clocks = DeviceClocks()
    for second in range(0, 100, 5):
        assert not is_late(clocks, taken(NOW + second * 1000), NOW + second * 1000)
    arrived = NOW + 160_000
    for second in range(100, 160, 5):
        late = is_late(clocks, taken(NOW + second * 1000), arrived + second)
        assert late == (second <= 130)
    assert is_late(clocks, taken(NOW + 165_000 - 31_000), NOW + 165_000)
    assert not is_late(clocks, taken(NOW + 166_000), NOW + 166_000)
    assert is_late(clocks, taken(NOW + 167_000 - 31_000), NOW + 167_000)
    assert clocks.wrong() == {}


def test_photos_of_an_outage_do_not_move_the_estimate():
    """Late photos expire by their age, and the ones after them are judged as before."""
    clocks = DeviceClocks()
    assert not is_late(clocks, taken(NOW), NOW)
    assert is_late(clocks, taken(NOW - HOUR_MS, historical=True), NOW)
    assert not is_late(clocks, taken(NOW + 1000), NOW + 1000)
    assert clocks.wrong() == {}


def test_the_first_photo_of_a_device_may_be_a_late_one():
    """Up to a day its clock is believed; beyond that the clock is wrong rather than the photo so old."""
    assert is_late(DeviceClocks(), taken(NOW - HOUR_MS, historical=True), NOW)
    assert not is_late(DeviceClocks(), taken(5000, historical=True), NOW)


def test_photos_without_times_are_judged_by_the_edges_clock():
    """A device that sends no time of the photo is expected to have the right time of expiry."""
    clocks = DeviceClocks()
    assert not is_late(clocks, taken(None), NOW)
    one = Photo(photo_id=photo_id(1), node=NODE, device="pi-2", image=jpeg(1), expires_at_ms=NOW - 1)
    assert is_late(clocks, one, NOW)


def test_the_reason_names_the_clock():
    """A sender gets the offset of its clock."""
    clocks = DeviceClocks()
    validate(enveloped(1, jpeg(1), taken_at_ms=NOW - HOUR_MS), NAMES, LIMITS, NOW, clocks)
    late = enveloped(2, jpeg(1), taken_at_ms=NOW - HOUR_MS - 50_000, expires_at_ms=NOW - HOUR_MS - 20_000)
    rejected = validate(late, NAMES, LIMITS, NOW, clocks)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "expired"
    assert "expired 20.0 s ago" in rejected.reason
    assert "this device's clock is 3600 s behind the edge's" in rejected.reason


def test_wrong_clocks_are_reported_and_bounded():
    """The largest offsets by device, in seconds; clocks that are nearly right are not reported."""
    clocks = DeviceClocks()
    for number in range(3 * MAX_SHOWN):
        clocks.observe(
            Photo(
                photo_id=photo_id(1),
                node=NODE,
                device=f"pi-{number}",
                image=b"x",
                taken_at_ms=NOW - number * 60_000,
            ),
            NOW,
        )
    wrong = clocks.wrong()
    assert len(wrong) == MAX_SHOWN
    assert wrong["pi-95"] == 95 * 60.0
    assert "pi-0" not in wrong


async def test_a_device_that_booted_in_1970_is_answered(config):
    """Its photos get answers, and the Status shows its clock."""
    async with station(config) as seen:
        for number in range(3):
            fields = {"taken_at_ms": 5000 + number, "expires_at_ms": 35_000 + number}
            await seen.send(enveloped(number, photo(number), **fields))
            assert (await seen.answer(photo_id(number))).status == "ok"
        await eventually(lambda: "pi-1" in seen.newest().clock_offsets_s)
        assert seen.newest().clock_offsets_s["pi-1"] > 1e9
