import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.audit_stats import Audits
from cloud.rollout.canary_analysis import Rules, alarms, audit_alarms, pooled
from schemas.messages import CanaryReport, VersionStats
from tests.cloud.judging import audit

COUNTS = st.integers(0, 5000)


def trial(*, champion=(100, 0, 10.0), challenger=(100, 0, 10.0), compared=100, disagreed=0) -> CanaryReport:
    tried = [
        VersionStats(version=version, answered=answered, failed=failed, p95_ms=p95_ms)
        for version, (answered, failed, p95_ms) in ((1, champion), (2, challenger))
    ]
    return CanaryReport(
        stage="canary",
        champion=tried[0],
        challenger=tried[1],
        compared=compared,
        disagreed=disagreed,
        since_ms=1,
    )


def reasons(*trials: CanaryReport, audits: Audits = Audits()) -> list[str]:  # noqa: B008 - it is frozen
    nodes = {f"edge-{number}": one for number, one in enumerate(trials, 1)}
    return [alarm.reason for alarm in alarms(nodes, Rules(), audits)]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"challenger": (0, 5, None)}, "it failed 5 of 5 calls"),
        ({"challenger": (90, 10, 10.0)}, "it failed 10 of 100 calls (10.0%), the champion 0.0%"),
        ({"compared": 20, "disagreed": 20}, "labels 20 of 20 photos otherwise"),
        ({"compared": 1000, "disagreed": 240}, "labels 240 of 1000 photos otherwise"),
        ({"challenger": (100, 0, 40.0)}, "on edge-1 its p95 is 40 ms, the champion's 10 ms"),
    ],
)
def test_what_is_bad_enough_is_an_alarm(bad, why):
    """Failed calls, other labels and slowness, each in words with its figures."""
    assert len(found := reasons(trial(**bad))) == 1
    assert why in found[0]


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"challenger": (0, 4, None)},  # four failures may be chance
        {"champion": (90, 10, 10.0), "challenger": (90, 10, 10.0)},  # the champion fails as often
        {"compared": 19, "disagreed": 19},  # too few to tell
        {"compared": 100, "disagreed": 22},  # above the bound, but not surely
        {"challenger": (100, 0, 29.0)},  # slower, by less than anybody notices
        {"challenger": (19, 0, 400.0)},
        {"challenger": (100, 0, None)},
    ],
)
def test_what_may_be_chance_is_none(fine):
    """A trial goes on while the figures do not surely speak against it."""
    assert reasons(trial(**fine)) == []


def test_nodes_speak_together_and_the_slow_one_for_itself():
    """Shares are of all nodes; a p95 is held against the champion's on the same machine."""
    fast, slow = {"compared": 12, "disagreed": 12}, {"champion": (100, 0, 90.0), "challenger": (100, 0, 95.0)}
    assert reasons(trial(**fast)) == []
    assert len(reasons(trial(**fast), trial(**fast))) == 1
    assert reasons(trial(), trial(**slow)) == []
    assert pooled([trial(), trial(**slow)]).challenger.p95_ms == 95.0
    assert pooled([]) is None


@settings(deadline=None)
@given(compared=COUNTS, agreed=COUNTS)
def test_no_disagreement_within_bounds_is_an_alarm(compared, agreed):
    """Whatever the counts, a share at or below the bound never sends a version back, all of many always."""
    disagreed = min(compared // 5, agreed)
    assert reasons(trial(compared=compared, disagreed=disagreed)) == []
    assert bool(reasons(trial(compared=compared, disagreed=compared))) == (compared >= 20)


def test_what_cures_drift_is_not_sent_back_for_other_labels():
    """Two versions disagree at most as often as both are wrong: a third wrong explains two thirds."""
    other = trial(compared=200, disagreed=70)
    assert len(reasons(other)) == 1, "without audits the bound of the rules holds"
    drifted = Audits(champion=audit(60, 40))
    assert reasons(other, audits=drifted) == []
    swapped = reasons(trial(compared=200, disagreed=190), audits=Audits(champion=audit(200, 190)))
    assert "at most 20.0% allowed; 5.0% mistakes of the champion explain 10.0%" in swapped[0]
    assert len(reasons(other, audits=Audits(champion=audit(19, 12)))) == 1, "too few to explain anything"


@settings(deadline=None)
@given(photos=st.integers(20, 500), compared=st.integers(20, 2000), data=st.data())
def test_no_audit_makes_a_rollout_stricter(photos, compared, data):
    """What the rules allow without audits they allow with them, and what is explained is no alarm."""
    audits = Audits(champion=audit(photos, data.draw(st.integers(0, photos))))
    disagreed = data.draw(st.integers(0, compared))
    one = trial(compared=compared, disagreed=disagreed)
    assert len(reasons(one, audits=audits)) <= len(reasons(one))
    if disagreed / compared <= 2 * (1 - audits.champion.accuracy):
        assert reasons(one, audits=audits) == []


@settings(deadline=None)
@given(photos=st.integers(6, 500), data=st.data())
def test_audits_send_back_what_is_surely_worse_and_nothing_else(photos, data):
    """A version that is right as often is never sent back; one that is wrong throughout always."""
    right = data.draw(st.integers(0, photos))
    as_good = audit(photos, data.draw(st.integers(right, photos)))
    assert not list(audit_alarms(Audits(as_good, audit(photos, right))))
    assert list(audit_alarms(Audits(audit(photos, 0), audit(photos, photos))))


def test_audits_say_what_they_compare():
    """The champion's since the trial began, or those before it too; without any of it nothing is said."""
    bad = audit(8, 2)
    assert not list(audit_alarms(Audits(bad)))
    assert not list(audit_alarms(Audits(champion=audit(1500, 1500))))
    since = next(audit_alarms(Audits(bad, audit(100, 95), audit(900, 900)))).reason
    assert since.endswith("2 of 8 answers right (25.0%), the champion's 95.0% of 100 since the trial began")
    before = next(audit_alarms(Audits(bad, audit(4, 3), audit(96, 92)))).reason
    assert before.endswith("the champion's 95.0% of 100 since 14 days before the trial")


def test_a_champion_is_not_held_against_a_canary_on_other_days():
    """What drift does to both is no reason against one of them."""
    assert not list(audit_alarms(Audits(audit(40, 24), audit(60, 36), audit(900, 880))))
