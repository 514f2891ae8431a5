from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.presence import Presence
from edge.serving.call_stats import CALLS_KEPT, CALLS_NEEDED, percentile
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import CanaryPlan, TrafficSplit
from schemas.codec import decode, encode
from schemas.messages import VersionStats
from schemas.topics import STATUS

CANARY = CanaryPlan("canary", 0.3, 1, 2, 10)
EVERY_DEVICE = replace(CANARY, share=1.0)


def routing(plan: CanaryPlan = CANARY) -> TrafficRouter:
    """Return a router with a ready challenger."""
    router = TrafficRouter()
    router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
    return router


calls = st.lists(
    st.tuples(st.sampled_from([1, 2, 7]), st.integers(1, 16), st.one_of(st.none(), st.floats(0, 30))),
    max_size=400,
)


@settings(deadline=None)
@given(calls=calls, failures=st.lists(st.sampled_from([1, 2, 7]), max_size=30))
def test_report_counts_calls_per_version(calls, failures):
    """Other versions are not counted, memory is bounded, and the report survives the wire."""
    router = routing()
    for version, photos, took_s in calls:
        router.record_success(version, photos, took_s)
    for version in failures:
        router.record_failure(version)
    report = router.canary_report()
    for stats in (report.champion, report.challenger):
        assert stats.answered == sum(photos for version, photos, _ in calls if version == stats.version)
        assert stats.failed == failures.count(stats.version)
        times = [1000 * s / photos for v, photos, s in calls if v == stats.version and s is not None]
        assert stats.p95_ms == (percentile(times[-CALLS_KEPT:]) if len(times) >= CALLS_NEEDED else None)
    status = structs.replace(Presence("edge-1", "edge").status(Counters()), canary=report)
    assert decode(STATUS, encode(STATUS, status), {"node": "edge-1", "name": "edge"}) == status


def test_no_percentile_of_few_calls():
    """Three calls have no 95th percentile; twenty have one, and one slow call is not it."""
    router = routing()
    for took_s in (0.1, 0.1, 9.0):
        router.record_success(2, 8, took_s)
    assert router.canary_report().challenger.p95_ms is None
    for _ in range(17):
        router.record_success(2, 8, 0.1)
    assert router.canary_report().challenger.p95_ms == 12.5


@settings(deadline=None)
@given(agreements=st.lists(st.booleans(), max_size=50))
def test_each_stage_restarts_the_counts_and_the_same_plan_does_not(agreements):
    """Another release starts at zero; the same plan again changes nothing."""
    router = routing()
    for agreed in agreements:
        router.record_comparison(agreed=agreed)
    before = structs.replace(router.canary_report())
    router.apply(router.split.follow(CanaryPlan("canary", 0.3, 1, 2, since_ms=10)))
    assert router.canary_report() == before
    assert (before.compared, before.disagreed, before.since_ms) == (
        len(agreements),
        agreements.count(False),
        10,
    )
    router.apply(router.split.follow(CanaryPlan("canary", 0.3, 1, 2, since_ms=99)))
    assert (router.canary_report().compared, router.canary_report().since_ms) == (0, 99)


def test_a_missing_challenger_is_not_asked():
    """A missing champion changes nothing: it is the version that answers in any case."""
    router = routing(EVERY_DEVICE)
    router.mark_missing(1)
    assert router.split.ready
    assert (router.challenger_for("pi-1"), router.counterpart(1)) == (2, 2)
    router.mark_missing(2)
    assert not router.split.ready
    assert (router.challenger_for("pi-1"), router.counterpart(1), router.canary_report()) == (
        None,
        None,
        None,
    )


def test_the_version_in_service_is_counted_outside_of_a_stage():
    """From when it is known to serve; a stage has its own report, and another version starts at zero."""
    router = TrafficRouter()
    router.record_success(1, 3, 0.1)
    router.record_serving_failure()
    assert router.serving_report() is None, "the version in service is not known yet"
    router.set_serving(1)
    router.record_success(1, 4, 0.1)
    router.record_success(7, 9, 0.1)
    router.set_serving(1)
    router.record_serving_failure()
    assert router.serving_report() == VersionStats(version=1, answered=4, failed=1)
    router.apply(TrafficSplit.preparing(CANARY).with_challenger(ready=True))
    router.record_serving_failure()
    router.set_serving(2)
    assert router.serving_report() is None
    assert router.canary_report().champion == VersionStats(version=1)
    router.apply(TrafficSplit(pinned=2))
    router.set_serving(2)
    assert router.serving_report() == VersionStats(version=2)


def test_the_challenger_may_take_a_few_times_as_long_as_the_champion():
    """Two seconds at least; more where the champion itself is slow."""
    router = routing()
    assert router.challenger_timeout_s(16) == 2
    for _ in range(20):
        router.record_success(1, 2, 4.0)
    assert router.challenger_timeout_s(1) == 8
    assert router.challenger_timeout_s(3) == 24


def test_a_failing_challenger_answers_no_device_until_it_recovers():
    """Three failures in a row open the breaker, in any kind of call; ten successes in a row close it."""
    router = routing(EVERY_DEVICE)
    for _ in range(2):
        router.record_failure(2)
    router.record_failure(1)
    assert router.challenger_for("pi-1") == 2
    router.record_failure(2)
    assert router.challenger_for("pi-1") is None
    assert router.counterpart(1) == 2
    router.record_success(1, 1, 0.1)
    assert router.challenger_for("pi-1") is None
    for _ in range(2):
        for _ in range(9):
            router.record_success(2, 16, 0.1)
            assert router.challenger_for("pi-1") is None
        router.record_failure(2)
    for _ in range(10):
        assert router.challenger_for("pi-1") is None
        router.record_success(2, 1, None)
    assert router.challenger_for("pi-1") == 2
    router.record_failure(2)
    assert router.challenger_for("pi-1") == 2
