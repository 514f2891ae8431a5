import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from bus.retry import backoff, resend_delay

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
