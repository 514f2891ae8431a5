import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.alarms import Audit, Rules, alarms, audit_alarms, most_gain, pooled
from schemas.messages import Trial, Tried

COUNTS = st.integers(0, 5000)


def trial(*, champion=(100, 0, 10.0), challenger=(100, 0, 10.0), compared=100, disagreed=0) -> Trial:
    tried = [
        Tried(version=version, answered=answered, failed=failed, p95_ms=p95_ms)
        for version, (answered, failed, p95_ms) in ((1, champion), (2, challenger))
    ]
    return Trial(
        stage="canary",
        champion=tried[0],
        challenger=tried[1],
        compared=compared,
        disagreed=disagreed,
        since_ms=1,
    )


def reasons(*trials: Trial) -> list[str]:
    nodes = {f"edge-{number}": one for number, one in enumerate(trials, 1)}
    return [alarm.reason for alarm in alarms(nodes, Rules())]


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


@settings(deadline=None)
@given(photos=st.integers(20, 500), data=st.data())
def test_audits_send_back_what_is_surely_worse_and_nothing_else(photos, data):
    """A version that is right as often is never sent back; one that is wrong throughout always."""
    right = data.draw(st.integers(0, photos))
    champion = Audit(photos, right)
    assert not list(audit_alarms(champion, Audit(photos, data.draw(st.integers(right, photos)))))
    assert list(audit_alarms(Audit(photos, photos), Audit(photos, 0)))
    assert most_gain(champion, champion) >= 0


def test_too_few_audits_say_nothing():
    """Nor does a version that has none."""
    assert not list(audit_alarms(Audit(500, 500), Audit(19, 0)))
    assert not list(audit_alarms(None, Audit(50, 0)))
    assert not list(audit_alarms(Audit(50, 50), None))
    assert "right (80.0%), the champion's 99.0%" in next(audit_alarms(Audit(500, 495), Audit(50, 40))).reason
