"""Rules of console/analysis/policy_preview.py: the edge's decisions, on photos that were answered before."""

from hypothesis import given
from hypothesis import strategies as st

from console.analysis.policy_preview import preview, recorded
from edge.harvest.lanes import drawn_for_audit
from schemas.messages import Result
from schemas.policy_rules import Caps, HarvestRules
from tests.nodes import photo_id

NEVER_AUDITED = HarvestRules(audit_share=0)


def result(number: int, confidence: float = 0.99, **fields: object) -> Result:
    """Return the answer to a photo, one second after the one before."""
    made = {
        "photo_id": photo_id(number),
        "node": "edge-1",
        "device": "pi-1",
        "status": "ok",
        "label": "cat",
        "confidence": confidence,
        "margin": 2 * confidence - 1,
        "entropy": 0.0,
        "answered_at_ms": 1000 * number,
        "harvest": "auto",
    }
    return Result(**(made | fields))


def test_confident_photos_are_auto_and_uncertain_ones_hard():
    """As `edge/harvest/lanes.py` says, with the thresholds of the rules."""
    results = [result(1), result(2, 0.55), result(3, 0.92), result(4, 0.92, label="dog")]
    rules = HarvestRules(audit_share=0, auto_confidence=0.95, auto_by_class={"dog": 0.9})
    done = preview(results, rules)
    assert done.lanes == {"auto": 2, "hard": 1}
    assert done.refused == {"between-thresholds": 1}
    assert done.classes == {"cat": {"auto": 1, "hard": 1}, "dog": {"auto": 1}}
    assert (done.photos, done.harvested) == (4, 3)
    assert preview(results, HarvestRules(audit_share=0, auto=False)).refused == {"auto-off": 3}


def test_caps_and_quotas_are_those_of_each_node():
    """In samples, by the times of the answers; a photo of a minute later has room again."""
    rules = HarvestRules(audit_share=0, caps=Caps(per_minute=2), quota_per_day=4)
    results = [result(at) for at in range(1, 5)] + [
        result(5, node="edge-2"),
        *(result(at) for at in (70, 71)),
    ]
    assert preview(results, rules).refused == {"cap-per-minute": 2}
    assert preview([result(100 * at) for at in range(6)], rules).refused == {"quota": 2}


def test_near_duplicates_stay_until_the_rules_turn_them_off():
    """The picture is not known here: the edge's word counts."""
    results = [result(1, harvest="near-duplicate")]
    assert preview(results, NEVER_AUDITED).refused == {"near-duplicate": 1}
    assert preview(results, HarvestRules(audit_share=0, near_duplicate_s=0)).lanes == {"auto": 1}


def test_damaged_photos_and_unknown_scores():
    """A damaged one is not in lane auto; one without a margin counts as uncertain, as at the edge."""
    assert preview([result(1, damaged="cut")], NEVER_AUDITED).refused == {"damaged": 1}
    assert preview([result(1, margin=None)], NEVER_AUDITED).lanes == {"hard": 1}
    assert preview([result(1, status="rejected", label=None)], NEVER_AUDITED).photos == 0


@given(st.floats(0, 1))
def test_the_share_of_audits_is_that_of_the_rules(share):
    """A larger share draws the same photos and further ones."""
    results = [result(number) for number in range(300)]
    done = preview(results, HarvestRules(audit_share=share, audits_per_device=1000))
    expected = sum(drawn_for_audit(one.photo_id, share) for one in results)
    assert done.lanes.get("audit", 0) == expected


def test_what_the_edges_did_is_counted_from_their_answers():
    """A reason that is not a lane is a refusal."""
    results = [result(1), result(2, harvest="quota"), result(3, harvest=None)]
    assert (recorded(results).lanes, recorded(results).refused) == ({"auto": 1}, {"quota": 1, "unknown": 1})
