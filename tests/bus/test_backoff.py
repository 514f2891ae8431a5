import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from bus.backoff import RESET_AFTER_S, ReconnectBackoff, backoff, resend_delay

seconds = st.floats(0.001, 1e4)


@given(first_s=seconds, cap_s=seconds, seed=st.integers())
def test_backoff_stays_below_a_doubling_ceiling(first_s, cap_s, seed):
    """Each delay lies between 0 and a ceiling that doubles from the first up to the cap."""
    delays = backoff(first_s, cap_s, draw=random.Random(seed))
    for number, delay_s in enumerate(itertools.islice(delays, 40)):
        assert 0 <= delay_s <= min(first_s * 2**number, cap_s)


def test_backoff_is_jittered():
    """Two clients that failed together do not come back together."""
    one, other = backoff(draw=random.Random(1)), backoff(draw=random.Random(2))
    assert list(itertools.islice(one, 5)) != list(itertools.islice(other, 5))


@given(attempt=st.integers(1, 10_000), first_s=seconds, cap_s=seconds)
def test_a_resend_gives_the_answer_its_time(attempt, first_s, cap_s):
    """The wait for an answer is at least half its ceiling and never above the cap."""
    delay_s = resend_delay(attempt, first_s=first_s, cap_s=cap_s)
    ceiling_s = min(first_s * 2.0 ** min(attempt - 1, 32), cap_s)
    assert ceiling_s / 2 <= delay_s <= ceiling_s


@given(lives=st.lists(st.one_of(st.none(), st.floats(0, 3 * RESET_AFTER_S)), max_size=40), seed=st.integers())
def test_only_a_steady_connection_begins_the_pauses_anew(lives, seed):
    """Pauses double after failures and short lives alike, up to the cap, until a connection was steady."""
    reconnects, ceiling_s = ReconnectBackoff(10.0, draw=random.Random(seed)), 0.5
    for number, worked_s in enumerate(lives):
        steady = worked_s is not None and worked_s > RESET_AFTER_S
        ceiling_s = 0.5 if steady or number == 0 else min(ceiling_s * 2, 10.0)
        assert 0 <= reconnects.lost(worked_s) <= ceiling_s
        assert (reconnects.failures == 1) == (steady or number == 0)


def test_lives_that_are_short_are_counted():
    """Connections that work and end at once are told apart from a broker that cannot be reached."""
    reconnects = ReconnectBackoff(10.0)
    counted = []
    for worked_s in (None, 0.1, 0.2, None, RESET_AFTER_S + 1, 0.1):
        reconnects.lost(worked_s)
        counted.append(reconnects.short_connections)
    assert counted == [0, 1, 2, 2, 0, 1]
