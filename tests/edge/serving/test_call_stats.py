from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serving.call_stats import CircuitBreaker, percentile


@settings(deadline=None)
@given(durations=st.lists(st.floats(0, 1e6), max_size=50), share=st.floats(0.01, 1))
def test_percentile_is_the_smallest_duration_that_covers_the_share(durations, share):
    """Without durations it is None."""
    found = percentile(durations, share)
    if not durations:
        assert found is None
        return
    assert sum(one <= found for one in durations) >= share * len(durations)
    assert sum(one < found for one in durations) < share * len(durations)


@settings(deadline=None)
@given(calls=st.lists(st.sampled_from([True, True, True, False]), max_size=80))
def test_breaker_follows_consecutive_results(calls):
    """It opens after 3 failures in a row, and closes after 10 successes in a row."""
    breaker, closed = CircuitBreaker(), True
    for number, success in enumerate(calls, start=1):
        breaker.record(success=success)
        if number >= 3 and not any(calls[number - 3 : number]):
            closed = False
        if number >= 10 and all(calls[number - 10 : number]):
            closed = True
        assert breaker.closed == closed
