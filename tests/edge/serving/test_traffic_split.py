from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.presence import Presence
from edge.serving.traffic_split import CALLS_KEPT, CALLS_NEEDED, Plan, Trial, percentile
from schemas.codec import decode, encode
from schemas.messages import VersionStats
from schemas.topics import STATUS

DEVICES = [f"pi-{number}" for number in range(2000)]
CANARY = Plan("canary", 0.3, 1, 2, 10)
NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)


def chosen(plan: Plan) -> set[str]:
    return {device for device in DEVICES if plan.tries(device)}


def on_trial(plan: Plan = CANARY) -> Trial:
    trial = Trial()
    trial.begin(plan)
    trial.ready = True
    return trial


def with_share(share: float, **changes: object) -> Plan:
    facts = {"stage": "canary", "share": share, "champion": 1, "challenger": 2, "since_ms": 0}
    return Plan(**(facts | changes))


@settings(deadline=None)
@given(device=NAMES, one=st.floats(0, 1), other=st.floats(0, 1), version=st.integers(1, 2**53))
def test_a_larger_share_only_adds_devices(device, one, other, version):
    """A device that was a canary stays one while the share grows; share 1 is every device, share 0 none."""
    small, large = (with_share(share, challenger=version) for share in sorted((one, other)))
    assert small.tries(device) <= large.tries(device)
    assert with_share(1.0, challenger=version).tries(device)
    assert not with_share(0.0, challenger=version).tries(device)
    assert not with_share(1.0, challenger=version, stage="shadow").tries(device)


def test_the_share_is_that_of_the_devices_and_others_suffer_next_time():
    """Of 2000 devices about the share is chosen, and for another version independently of the first."""
    one, other = chosen(with_share(0.3)), chosen(with_share(0.3, challenger=3))
    assert 500 < len(one) < 700
    assert 100 < len(one & other) < 260


@settings(deadline=None)
@given(durations=st.lists(st.floats(0, 1e6), max_size=50), share=st.floats(0.01, 1))
def test_a_percentile_is_the_least_that_the_share_does_not_exceed(durations, share):
    """Of nothing there is none."""
    found = percentile(durations, share)
    if not durations:
        assert found is None
        return
    assert sum(one <= found for one in durations) >= share * len(durations)
    assert sum(one < found for one in durations) < share * len(durations)


calls = st.lists(
    st.tuples(st.sampled_from([1, 2, 7]), st.integers(1, 16), st.one_of(st.none(), st.floats(0, 30))),
    max_size=400,
)


@settings(deadline=None)
@given(calls=calls, failures=st.lists(st.sampled_from([1, 2, 7]), max_size=30))
def test_what_is_reported_is_what_happened(calls, failures):
    """Photos and failures by version; others are not counted, memory is bounded, and the report travels."""
    trial = on_trial()
    for version, photos, took_s in calls:
        trial.answered(version, photos, took_s)
    for version in failures:
        trial.failed(version)
    report = trial.report()
    for tried in (report.champion, report.challenger):
        assert tried.answered == sum(photos for version, photos, _ in calls if version == tried.version)
        assert tried.failed == failures.count(tried.version)
        times = [1000 * s / photos for v, photos, s in calls if v == tried.version and s is not None]
        assert tried.p95_ms == (percentile(times[-CALLS_KEPT:]) if len(times) >= CALLS_NEEDED else None)
    status = structs.replace(Presence("edge-1", "edge").status(Counters()), canary=report)
    assert decode(STATUS, encode(STATUS, status), {"node": "edge-1", "name": "edge"}) == status


def test_one_slow_call_among_few_says_nothing():
    """24 photos in three calls have no 95th percentile; twenty calls have one, and one slow one is not it."""
    trial = on_trial()
    for took_s in (0.1, 0.1, 9.0):
        trial.answered(2, 8, took_s)
    assert trial.report().challenger.p95_ms is None
    for _ in range(17):
        trial.answered(2, 8, 0.1)
    assert trial.report().challenger.p95_ms == 12.5


@settings(deadline=None)
@given(agreements=st.lists(st.booleans(), max_size=50))
def test_each_stage_counts_anew_and_the_same_again_does_not(agreements):
    """Another release begins at nothing; the same one again changes nothing."""
    trial = on_trial()
    for agreed in agreements:
        trial.compared(agreed=agreed)
    again = structs.replace(trial.report())
    trial.change(Plan("canary", 0.3, 1, 2, since_ms=10))
    assert trial.report() == again
    assert (again.compared, again.disagreed, again.since_ms) == (len(agreements), agreements.count(False), 10)
    trial.change(Plan("canary", 0.3, 1, 2, since_ms=99))
    assert (trial.report().compared, trial.report().since_ms) == (0, 99)


def test_the_champion_answers_all_until_the_challenger_is_ready():
    """Before it is loaded, when it was missed, and after the trial, nobody is asked but the champion."""
    trial = on_trial(with_share(1.0))
    assert (trial.pinned, trial.challenger_for("pi-1"), trial.other(1), trial.other(2)) == (1, 2, 2, 1)
    trial.missed(1)
    assert trial.ready
    trial.missed(2)
    assert (trial.challenger_for("pi-1"), trial.other(1), trial.report()) == (None, None, None)
    trial.ready = True
    trial.end()
    assert (trial.pinned, trial.challenger_for("pi-1"), trial.challenger, trial.report()) == (
        1,
        None,
        None,
        None,
    )


def test_what_the_version_in_service_does_is_counted_outside_of_trials():
    """From when it is known to serve; a trial has its own report, and another version begins at nothing."""
    trial = Trial()
    trial.answered(1, 3, 0.1)
    trial.failed_in_service()
    assert trial.serving() is None, "nobody knows yet which it is"
    trial.serves(1)
    trial.answered(1, 4, 0.1)
    trial.answered(7, 9, 0.1)
    trial.serves(1)
    trial.failed_in_service()
    assert trial.serving() == VersionStats(version=1, answered=4, failed=1)
    trial.begin(CANARY)
    trial.ready = True
    trial.failed_in_service()
    trial.serves(2)
    assert trial.serving() is None
    assert trial.report().champion == VersionStats(version=1)
    trial.end(2)
    trial.serves(2)
    assert trial.serving() == VersionStats(version=2)


def test_the_challenger_has_a_few_times_what_the_champion_takes():
    """Two seconds at least; more where the champion itself is slow."""
    trial = on_trial()
    assert trial.patience_s(16) == 2
    for _ in range(20):
        trial.answered(1, 2, 4.0)
    assert trial.patience_s(1) == 8
    assert trial.patience_s(3) == 24


def test_a_challenger_that_fails_again_and_again_answers_nobody_until_it_does_well():
    """Three failures in a row, wherever they were; ten answers in a row to be asked again."""
    trial = on_trial(with_share(1.0))
    for _ in range(2):
        trial.failed(2)
    trial.failed(1)
    assert trial.challenger_for("pi-1") == 2
    trial.failed(2)
    assert trial.challenger_for("pi-1") is None
    assert trial.other(1) == 2
    trial.answered(1, 1, 0.1)
    assert trial.challenger_for("pi-1") is None
    for _ in range(2):
        for _ in range(9):
            trial.answered(2, 16, 0.1)
            assert trial.challenger_for("pi-1") is None
        trial.failed(2)
    for _ in range(10):
        assert trial.challenger_for("pi-1") is None
        trial.answered(2, 1, None)
    assert trial.challenger_for("pi-1") == 2
    trial.failed(2)
    assert trial.challenger_for("pi-1") == 2
