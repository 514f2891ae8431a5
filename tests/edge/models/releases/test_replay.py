"""Times of releases are believed as far as this node's clock confirms them; replays are refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.models.releases.replay import TOLERANCE_MS, Accepted, accept, rejection
from schemas.messages import Release

NOW = 1_700_000_000_000
AHEAD = NOW + 10 * 365 * 86_400_000


def release(at_ms: int) -> Release:
    return Release(
        node="edge-1",
        model="pets",
        version=1,
        url="file:///1",
        sha256="0" * 64,
        size_bytes=1,
        classes=["cat", "dog"],
        released_at_ms=at_ms,
        signature=f"{at_ms:0128x}",
    )


def received(*times: int, now_ms: int = NOW, before: Accepted | None = None) -> tuple[Accepted, list[bool]]:
    """Receive releases in order; return the state after them, and which were accepted."""
    accepted, outcomes = before or Accepted(), []
    for at_ms in times:
        outcomes.append(rejection(accepted, release(at_ms)) is None)
        if outcomes[-1]:
            accepted = accept(accepted, release(at_ms), now_ms)
    return accepted, outcomes


def test_g6_a_clock_that_is_ahead_locks_nobody_out():
    """G6: after a release from the future an honest one is accepted, and the one from the future no more."""
    state, outcomes = received(NOW - 100, AHEAD, NOW - 50, AHEAD, NOW - 100, NOW)
    assert outcomes == [True, True, True, False, False, True]
    assert state.limit_ms == NOW


def test_g6_a_small_lead_is_a_time_like_any_other():
    """G6: a signer whose clock is some minutes ahead is ordered by its times."""
    _, outcomes = received(NOW + TOLERANCE_MS, NOW, NOW + TOLERANCE_MS)
    assert outcomes == [True, False, True]


def test_g6_a_node_whose_clock_is_behind_accepts_and_refuses_replays():
    """G6: a node that starts in 1970 accepts releases, and refuses what it or an earlier run had replaced."""
    before, _ = received(NOW - 3000, NOW - 2000)
    state, outcomes = received(NOW - 1000, NOW, NOW - 1000, NOW - 3000, NOW, now_ms=0, before=before)
    assert outcomes == [True, True, False, False, True]
    # Its clock is right again, and the retained release is delivered again.
    state, outcomes = received(NOW, NOW - 1000, NOW - 2000, now_ms=NOW, before=state)
    assert outcomes == [True, False, False]
    assert state.limit_ms == NOW


def test_g6_the_retained_release_is_accepted_again():
    """G6: a restart delivers the release in force again, with any time."""
    for at_ms in (NOW, AHEAD):
        state, _ = received(at_ms)
        assert received(at_ms, at_ms, before=state)[1] == [True, True]


TIMES = st.integers(0, 2 * NOW)


@given(st.lists(TIMES, max_size=8), st.lists(TIMES, min_size=1, max_size=8))
def test_g6_nothing_is_accepted_a_second_time_after_another(times, clocks):
    """G6: with any clocks of signer and node, a release that another replaced does not come back."""
    accepted, gone, current = Accepted(), set(), None
    for at_ms, now_ms in zip(times * 2, itertools.cycle(clocks), strict=False):
        if rejection(accepted, release(at_ms)) is None:
            assert at_ms not in gone
            if current not in (None, at_ms):
                gone.add(current)
            accepted, current = accept(accepted, release(at_ms), now_ms), at_ms


@pytest.mark.parametrize("count", [100])
def test_g3_few_signatures_are_remembered(count):
    """G3: the state does not grow with the number of releases from the future."""
    state, _ = received(*(AHEAD + number for number in range(count)))
    assert len(state.replaced) < count
