"""Rules of cloud/rollout/canary_analysis.py: which figures roll a version back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.rollout_state import Rules
from cloud.rollout.canary_analysis import (
    EVEN_FROM,
    audit_alarms,
    credible,
    evened,
    latency_alarms,
    pool_reports,
    pooled_alarms,
)
from schemas.messages import CanaryReport, VersionStats
from tests.cloud.judging import audit

COUNTS = st.integers(0, 5000)


def report(*, champion=(100, 0, 10.0), challenger=(100, 0, 10.0), compared=100, disagreed=0) -> CanaryReport:
    stats = [
        VersionStats(version=version, answered=answered, failed=failed, p95_ms=p95_ms)
        for version, (answered, failed, p95_ms) in ((1, champion), (2, challenger))
    ]
    return CanaryReport(
        stage="canary",
        champion=stats[0],
        challenger=stats[1],
        compared=compared,
        disagreed=disagreed,
        since_ms=1,
    )


def reasons(*reports: CanaryReport, audits: RolloutAudits = RolloutAudits()) -> list[str]:  # noqa: B008 - it is frozen
    nodes = {f"edge-{number}": one for number, one in enumerate(reports, 1)}
    alarms = [*pooled_alarms(nodes, Rules(), audits), *latency_alarms(nodes, Rules()).values()]
    return [alarm.reason for alarm in alarms]


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
def test_a_significant_excess_is_an_alarm(bad, why):
    """Failed calls, disagreement and latency, each with its figures in the reason."""
    assert len(found := reasons(report(**bad))) == 1
    assert why in found[0]


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"challenger": (0, 4, None)},  # four failures may be chance
        {"champion": (90, 10, 10.0), "challenger": (90, 10, 10.0)},  # the champion fails as often
        {"compared": 19, "disagreed": 19},  # too few to tell
        {"compared": 100, "disagreed": 22},  # above the limit, but not significantly
        {"challenger": (100, 0, 29.0)},  # slower, by less than the slack
        {"challenger": (19, 0, 400.0)},
        {"challenger": (100, 0, None)},
    ],
)
def test_an_insignificant_excess_is_no_alarm(fine):
    """The rollout continues while the figures may be chance."""
    assert reasons(report(**fine)) == []


def test_shares_are_pooled_over_nodes_and_latency_is_not():
    """A p95 is compared with the champion's on the same machine."""
    fast, slow = {"compared": 12, "disagreed": 12}, {"champion": (100, 0, 90.0), "challenger": (100, 0, 95.0)}
    assert reasons(report(**fast)) == []
    assert len(reasons(report(**fast), report(**fast))) == 1
    assert reasons(report(), report(**slow)) == []
    assert pool_reports([report(), report(**slow)]).challenger.p95_ms == 95.0
    assert pool_reports([]) is None


@settings(deadline=None)
@given(compared=COUNTS, agreed=COUNTS)
def test_disagreement_within_the_limit_is_no_alarm(compared, agreed):
    """For any counts; disagreement in all of 20 photos or more always is one."""
    disagreed = min(compared // 5, agreed)
    assert reasons(report(compared=compared, disagreed=disagreed)) == []
    assert bool(reasons(report(compared=compared, disagreed=compared))) == (compared >= 20)


def test_disagreement_that_the_champions_mistakes_explain_is_no_alarm():
    """A version that cures drift disagrees: a champion with a third of mistakes explains two thirds."""
    other = report(compared=200, disagreed=70)
    assert len(reasons(other)) == 1, "without audits the limit of the rules holds"
    drifted = RolloutAudits(champion=audit(60, 40))
    assert reasons(other, audits=drifted) == []
    swapped = reasons(report(compared=200, disagreed=190), audits=RolloutAudits(champion=audit(200, 190)))
    assert "at most 20.0% allowed; 5.0% mistakes of the champion explain 10.0%" in swapped[0]
    assert len(reasons(other, audits=RolloutAudits(champion=audit(19, 12)))) == 1, (
        "too few to explain anything"
    )


@settings(deadline=None)
@given(photos=st.integers(20, 500), compared=st.integers(20, 2000), data=st.data())
def test_no_audit_makes_a_rollout_stricter(photos, compared, data):
    """What is allowed without audits is allowed with them, and explained disagreement gives no alarm."""
    audits = RolloutAudits(champion=audit(photos, data.draw(st.integers(0, photos))))
    disagreed = data.draw(st.integers(0, compared))
    one = report(compared=compared, disagreed=disagreed)
    assert len(reasons(one, audits=audits)) <= len(reasons(one))
    if disagreed / compared <= 2 * (1 - audits.champion.accuracy):
        assert reasons(one, audits=audits) == []


@settings(deadline=None)
@given(photos=st.integers(6, 500), data=st.data())
def test_audits_alarm_on_a_significantly_worse_version_only(photos, data):
    """A version that is as accurate gives no alarm; one that is always wrong gives one."""
    right = data.draw(st.integers(0, photos))
    as_good = audit(photos, data.draw(st.integers(right, photos)))
    assert not list(audit_alarms(RolloutAudits(as_good, audit(photos, right))))
    assert list(audit_alarms(RolloutAudits(audit(photos, 0), audit(photos, photos))))


def test_the_reason_names_the_period_of_the_audits():
    """Since the rollout began, or with the days before it; without audits of both versions, no alarm."""
    bad = audit(8, 2)
    assert not list(audit_alarms(RolloutAudits(bad)))
    assert not list(audit_alarms(RolloutAudits(champion=audit(1500, 1500))))
    since = next(audit_alarms(RolloutAudits(bad, audit(100, 95), audit(900, 900)))).reason
    assert since.endswith("2 of 8 answers right (25.0%), the champion's 95.0% of 100 since the trial began")
    before = next(audit_alarms(RolloutAudits(bad, audit(4, 3), audit(96, 92)))).reason
    assert before.endswith("the champion's 95.0% of 100 since 14 days before the trial")


def test_the_champions_earlier_audits_are_unused_if_there_are_enough():
    """Drift lowers the accuracy of both versions alike and gives no alarm."""
    assert not list(audit_alarms(RolloutAudits(audit(40, 24), audit(60, 36), audit(900, 880))))


def test_one_node_does_not_decide_for_a_fleet():
    """False reports of one edge neither stop a good version nor hide the others' reports of a bad one."""
    many, never = 10**9, {"compared": 10**9, "disagreed": 0}
    good, bad = [report()] * 60, [report(compared=200, disagreed=120)] * 60
    lies = [report(compared=many, disagreed=many), report(challenger=(0, many, None)), report(**never)]
    for lie in lies[:2]:
        assert reasons(*good, *[report(compared=5000, challenger=(5000, 0, 10.0))] * 60, lie) == []
    assert [one for one in reasons(*bad, lies[2]) if "photos otherwise" in one]


@given(COUNTS, COUNTS, st.integers(1, 100))
def test_a_node_of_usual_size_counts_in_full(compared, disagreed, others):
    """A thousand photos, or those of the median node, change nothing; a busier node keeps its shares."""
    one = report(compared=min(compared, EVEN_FROM), disagreed=min(disagreed, compared, EVEN_FROM))
    assert evened([one] * others) == [one] * others
    busy = evened([report(compared=3000)] * others + [report(compared=6000, disagreed=600)])[-1]
    assert (busy.compared, busy.disagreed) == (3000, 300)


@pytest.mark.parametrize("claimed", [2**53, 10**9 + 1])
def test_figures_that_cannot_be_are_cut(claimed):
    """More disagreements than comparisons hide nothing, and sums stay counts of the contract."""
    odd = credible(report(compared=20, disagreed=claimed, challenger=(claimed, claimed, 1.0)))
    assert (odd.compared, odd.disagreed, odd.challenger.failed) == (20, 20, 10**9)
    assert pool_reports([odd] * 1000).challenger.answered < 2**53
