import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from bus.backoff import RESET_AFTER_S, ReconnectBackoff, backoff, resend_delay

seconds = st.floats(0.001, 1e4)


@given(first_s=seconds, cap_s=seconds, seed=st.integers())
def test_backoff_stays_below_a_doubling_ceiling(first_s, cap_s, seed):
    """Each delay is between 0 and a ceiling that doubles from `first_s` up to `cap_s`."""
    delays = backoff(first_s, cap_s, rng=random.Random(seed))
    for number, delay_s in enumerate(itertools.islice(delays, 40)):
        assert 0 <= delay_s <= min(first_s * 2**number, cap_s)


def test_backoff_is_jittered():
    """Two clients with different random numbers get different delays."""
    one, other = backoff(rng=random.Random(1)), backoff(rng=random.Random(2))
    assert list(itertools.islice(one, 5)) != list(itertools.islice(other, 5))


@given(attempt=st.integers(1, 10_000), first_s=seconds, cap_s=seconds)
def test_a_resend_delay_is_at_least_half_its_ceiling(attempt, first_s, cap_s):
    """The wait for an answer is at least half its ceiling and at most the cap."""
    delay_s = resend_delay(attempt, first_s=first_s, cap_s=cap_s)
    ceiling_s = min(first_s * 2.0 ** min(attempt - 1, 32), cap_s)
    assert ceiling_s / 2 <= delay_s <= ceiling_s


uptimes_s = st.lists(st.one_of(st.none(), st.floats(0, 3 * RESET_AFTER_S)), max_size=40)


@given(uptimes_s=uptimes_s, seed=st.integers())
def test_only_a_lasting_connection_resets_the_backoff(uptimes_s, seed):
    """The ceiling doubles after failures and short connections, until a connection lasted."""
    reconnect, ceiling_s = ReconnectBackoff(10.0, rng=random.Random(seed)), 0.5
    for number, uptime_s in enumerate(uptimes_s):
        lasted = uptime_s is not None and uptime_s > RESET_AFTER_S
        ceiling_s = 0.5 if lasted or number == 0 else min(ceiling_s * 2, 10.0)
        assert 0 <= reconnect.next_delay(uptime_s) <= ceiling_s
        assert (reconnect.failures == 1) == (lasted or number == 0)


def test_short_connections_are_counted():
    """Connections that work only briefly are counted separately from failed attempts."""
    reconnect = ReconnectBackoff(10.0)
    counts = []
    for uptime_s in (None, 0.1, 0.2, None, RESET_AFTER_S + 1, 0.1):
        reconnect.next_delay(uptime_s)
        counts.append(reconnect.short_connections)
    assert counts == [0, 1, 2, 2, 0, 1]
