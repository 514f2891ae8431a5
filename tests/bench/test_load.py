"""Load generators: the schedule, and the start of a latency."""

import asyncio
import itertools
import statistics

import pytest

from bench.load import RequestFailedError, arrivals, closed_loop, open_loop


def test_arrivals_keep_the_rate() -> None:
    """Arrivals are sorted and random with the given rate, and the same for the same seed."""
    due_s = arrivals(100.0, 50.0, seed=3)
    assert due_s == sorted(due_s) == arrivals(100.0, 50.0, seed=3)
    assert due_s != arrivals(100.0, 50.0, seed=4)
    assert 0 < due_s[0] < due_s[-1] < 50
    assert len(due_s) == pytest.approx(5000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due_s)]
    assert statistics.stdev(gaps) == pytest.approx(
        statistics.mean(gaps), rel=0.1
    )  # as for an exponential distribution


async def test_a_stall_counts_for_all_delayed_photos() -> None:
    """Latencies count from the schedule, so a stall of the server shows in every delayed photo."""
    lock = asyncio.Lock()
    turns = itertools.count()

    async def request(_photo: bytes) -> None:
        async with lock:
            if next(turns) == 0:
                await asyncio.sleep(0.3)

    outcome = await open_loop(request, [b"photo"], [number / 100 for number in range(20)], timeout_s=5.0)
    assert outcome.failed == 0
    assert len(outcome.latencies_s) == 20
    assert min(outcome.latencies_s) > 0.1  # the last was due after 0.19 s, and went through at 0.3 s
    assert max(outcome.latencies_s) >= 0.3


async def test_a_late_sender_does_not_reduce_latencies() -> None:
    """The latency of a photo that is sent late counts from its scheduled time."""

    async def request(_photo: bytes) -> None:
        pass

    loop = asyncio.get_running_loop()
    started_at = loop.time()
    due_s = [-0.2, -0.2]
    outcome = await open_loop(request, [b"photo"], due_s, timeout_s=5.0)
    assert all(0.2 <= latency_s <= 0.2 + loop.time() - started_at for latency_s in outcome.latencies_s)


async def test_no_answer_is_a_failure() -> None:
    """Photos with another answer, or none in time, are counted as failures and have no latency."""

    async def request(photo: bytes) -> None:
        if photo == b"refused":
            raise RequestFailedError(photo)
        if photo == b"lost":
            await asyncio.Event().wait()

    outcome = await open_loop(request, [b"fine", b"refused", b"lost"], [0.0] * 6, timeout_s=1.0)
    assert (len(outcome.latencies_s), outcome.failed) == (2, 4)


async def test_an_unexpected_error_is_raised() -> None:
    """An error that is not an answer ends the measurement."""

    async def request(_photo: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await open_loop(request, [b"photo"], [0.0], timeout_s=1.0)
    with pytest.raises(ZeroDivisionError):
        await closed_loop(request, [b"photo"], at_once=2, seconds=1.0, warmup_s=0.0)


async def test_closed_loop_keeps_a_fixed_number_in_flight() -> None:
    """Exactly that many photos are in flight, and those of the warm-up are not counted."""
    in_flight, most, sent = 0, 0, 0
    counted = []

    async def request(_photo: bytes) -> None:
        nonlocal in_flight, most, sent
        sent += 1
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1

    outcome = await closed_loop(
        request, [b"photo"], at_once=7, seconds=0.2, warmup_s=0.2, watch=lambda: counted.append(sent)
    )
    assert most == 7
    assert in_flight == 0
    started, ended = counted
    assert 0 < started < ended <= sent
    assert abs(len(outcome.latencies_s) - (ended - started)) <= 14
