"""Load generators: what is sent when, and from when a latency counts."""

import asyncio
import itertools
import statistics

import pytest

from bench.load import AnswerError, arrivals, closed_loop, open_loop


def test_arrivals_keep_the_rate() -> None:
    """Photos come at random moments in order, as many as the rate says, the same for each contestant."""
    due_s = arrivals(100.0, 50.0, seed=3)
    assert due_s == sorted(due_s) == arrivals(100.0, 50.0, seed=3)
    assert due_s != arrivals(100.0, 50.0, seed=4)
    assert 0 < due_s[0] < due_s[-1] < 50
    assert len(due_s) == pytest.approx(5000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due_s)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)  # of an exponential


async def test_a_stall_counts_for_all_behind_it() -> None:
    """A latency counts from the schedule, so one stall of the server shows in every photo that it held up."""
    lock = asyncio.Lock()
    turns = itertools.count()

    async def ask(_photo: bytes) -> None:
        async with lock:
            if next(turns) == 0:
                await asyncio.sleep(0.3)

    outcome = await open_loop(ask, [b"photo"], [number / 100 for number in range(20)], patience_s=5.0)
    assert outcome.failed == 0
    assert len(outcome.latencies_s) == 20
    assert min(outcome.latencies_s) > 0.1  # the last was due after 0.19 s, and went through at 0.3 s
    assert max(outcome.latencies_s) >= 0.3


async def test_a_busy_sender_makes_no_latency_smaller() -> None:
    """A photo that the sender itself sends late counts from when it was due."""

    async def ask(_photo: bytes) -> None:
        pass

    loop = asyncio.get_running_loop()
    began = loop.time()
    due_s = [-0.2, -0.2]
    outcome = await open_loop(ask, [b"photo"], due_s, patience_s=5.0)
    assert all(0.2 <= latency_s <= 0.2 + loop.time() - began for latency_s in outcome.latencies_s)


async def test_no_answer_is_a_failure() -> None:
    """Photos that are refused, or that nobody answers in time, are no latencies but failures."""

    async def ask(photo: bytes) -> None:
        if photo == b"refused":
            raise AnswerError(photo)
        if photo == b"lost":
            await asyncio.Event().wait()

    outcome = await open_loop(ask, [b"fine", b"refused", b"lost"], [0.0] * 6, patience_s=0.1)
    assert (len(outcome.latencies_s), outcome.failed) == (2, 4)


async def test_a_fault_of_the_measurement_ends_it() -> None:
    """An error that is no answer is not counted among the failures: it is raised."""

    async def ask(_photo: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await open_loop(ask, [b"photo"], [0.0], patience_s=1.0)
    with pytest.raises(ZeroDivisionError):
        await closed_loop(ask, [b"photo"], at_once=2, seconds=1.0, settle_s=0.0)


async def test_closed_loop_keeps_so_many_under_way() -> None:
    """As many photos are under way as asked for and never more; those of the settling are not counted."""
    under_way, most, asked = 0, 0, 0
    seen = []

    async def ask(_photo: bytes) -> None:
        nonlocal under_way, most, asked
        asked += 1
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1

    outcome = await closed_loop(
        ask, [b"photo"], at_once=7, seconds=0.2, settle_s=0.2, watch=lambda: seen.append(asked)
    )
    assert most == 7
    assert under_way == 0
    begun, ended = seen
    assert 0 < begun < ended <= asked
    assert abs(len(outcome.latencies_s) - (ended - begun)) <= 14
