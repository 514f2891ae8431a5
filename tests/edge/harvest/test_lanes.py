"""The scores choose the lane; any scores give a lane or a named refusal."""

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import structs

from edge.harvest.lanes import drawn_for_audit, lane_of
from edge.serving.prediction import Prediction, clamp_novelty, clamp_probability
from schemas.policy_rules import HarvestRules
from tests.nodes import photo_id

RULES = HarvestRules(auto_confidence=0.9, uncertain_above=0.5)
OFF = structs.replace(RULES, auto=False)
REFUSALS = {"between-thresholds", "auto-off"}


class Scores(NamedTuple):
    """Inputs of the lane decision, each chosen independently."""

    confidence: float = 0.95
    margin: float = 0.9
    entropy: float = 0.2
    novelty: float | None = 0.5
    label: str = "cat"


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        (Scores(), ("auto", None)),
        (Scores(confidence=0.9), ("auto", None)),
        (Scores(confidence=0.8999, margin=0.8), (None, "between-thresholds")),
        (Scores(confidence=0.3, margin=0.3), (None, "between-thresholds")),
        (Scores(entropy=0.5, novelty=1.0), ("auto", None)),
        (Scores(margin=0.1), ("hard", None)),
        (Scores(entropy=0.5001), ("hard", None)),
        (Scores(novelty=1.0001), ("hard", None)),
        (Scores(novelty=None), ("auto", None)),
        (Scores(confidence=math.nan), ("hard", None)),
        (Scores(margin=math.nan), ("hard", None)),
        (Scores(entropy=math.nan), ("hard", None)),
        (Scores(novelty=math.nan), ("hard", None)),
    ],
)
def test_each_threshold_decides(scores, decision):
    """Uncertain, novel or NaN is hard, confident is auto, and photos between both are refused."""
    assert lane_of(scores, RULES) == decision


def test_auto_by_class_replaces_auto_confidence():
    """Classes without an entry use the common threshold."""
    rules = structs.replace(RULES, auto_by_class={"dog": 0.99})
    assert lane_of(Scores(label="cat"), rules).lane == "auto"
    assert lane_of(Scores(label="dog"), rules).refused == "between-thresholds"
    assert lane_of(Scores(label="dog", confidence=0.99), rules).lane == "auto"


def test_auto_off_affects_the_lane_auto_only():
    """Photos for the lane auto are refused as `auto-off`; other decisions stay."""
    assert lane_of(Scores(), OFF) == (None, "auto-off")
    assert lane_of(Scores(confidence=0.8, margin=0.75), OFF) == (None, "between-thresholds")
    assert lane_of(Scores(margin=0.1), OFF) == ("hard", None)


def test_a_flip_is_hard_whatever_the_scores():
    """Nearly the same view has two labels, so one of them is wrong."""
    assert lane_of(Scores(confidence=1.0, margin=1.0, entropy=0.0), RULES, flipped=True).lane == "hard"
    assert lane_of(Scores(), OFF, flipped=True).lane == "hard"


def former_lane(prediction: Prediction, rules: HarvestRules) -> str | None:
    """Return the lane by the three former rules: confidence, margin and entropy."""
    certain = (
        prediction.confidence >= rules.hard_confidence
        and prediction.margin >= rules.hard_margin
        and prediction.entropy <= rules.uncertain_above
    )
    if not certain:
        return "hard"
    return "auto" if prediction.confidence >= rules.auto_confidence else None


@given(
    cat=st.floats(0, 1) | st.floats(0.88, 0.9),
    auto_confidence=st.floats(0, 1),
    uncertain_above=st.just(0.5) | st.floats(0, 0.811),
)
@settings(deadline=None)
def test_with_two_classes_the_lane_is_that_of_the_three_former_rules(cat, auto_confidence, uncertain_above):
    """With two classes the former defaults of confidence and margin never decided; the entropy did."""
    prediction = Prediction("pets", 1, {"cat": cat, "dog": 1 - cat}, b"")
    assume(abs(prediction.entropy - uncertain_above) > 1e-9)  # rounding differs
    rules = HarvestRules(auto_confidence=auto_confidence, uncertain_above=uncertain_above)
    assert lane_of(prediction, rules).lane == former_lane(prediction, rules)


@given(st.floats(0.5, 1))
def test_the_deprecated_rules_decide_nothing(confidence):
    """`hard_confidence` and `hard_margin` are read from an older policy and ignored."""
    prediction = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
    strict = structs.replace(RULES, hard_confidence=1.0, hard_margin=1.0)
    assert lane_of(prediction, strict) == lane_of(prediction, RULES)


def test_a_tie_between_two_of_many_classes_is_hard():
    """The entropy of a thousand classes is low if two share the probability; that of the two is not."""
    rest = {f"class-{number}": 0.0 for number in range(998)}
    tie = Prediction("pets", 1, {"cat": 0.5, "dog": 0.5} | rest, b"")
    assert tie.entropy < 0.2
    assert lane_of(tie, RULES).lane == "hard"
    sure = Prediction("pets", 1, {"cat": 0.99, "dog": 0.01} | rest, b"")
    assert lane_of(sure, RULES).lane == "auto"


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf, -math.inf]))
shares = st.floats(0, 1)


@given(
    scores=st.lists(numbers, min_size=1, max_size=4),
    times=st.sampled_from([1, 1, 250]),
    novelty=st.none() | numbers,
    rules=st.builds(
        HarvestRules,
        auto_confidence=shares,
        hard_confidence=shares,
        hard_margin=shares,
        uncertain_above=shares,
        hard_novelty=st.floats(0, 1e6),
        auto=st.booleans(),
        auto_by_class=st.dictionaries(st.sampled_from(["class-0", "class-1"]), shares),
    ),
    flipped=st.booleans(),
)
@settings(deadline=None)
def test_any_scores_get_a_lane_or_a_named_refusal(scores, times, novelty, rules, flipped):
    """No scores or thresholds raise; exactly one of lane and refusal is set."""
    by_class = {f"class-{number}": clamp_probability(score) for number, score in enumerate(scores * times)}
    prediction = Prediction("pets", 1, by_class, b"", clamp_novelty(novelty))
    chosen = lane_of(prediction, rules, flipped=flipped)
    assert (chosen.lane in ("auto", "hard")) != (chosen.refused in REFUSALS)
    assert (chosen.lane is None) != (chosen.refused is None)


@given(scores=st.lists(numbers, min_size=5, max_size=5))
@settings(deadline=None)
def test_unchecked_numbers_get_a_lane_or_a_named_refusal(scores):
    """The same for numbers that no prediction can have."""
    chosen = lane_of(Scores(*scores[:4]), RULES)
    assert (chosen.lane in ("auto", "hard")) != (chosen.refused in REFUSALS)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.3])
@pytest.mark.parametrize("ids", ["random", "counted"])
def test_the_audit_is_a_uniform_share(share, ids):
    """Of 20 000 ids, the drawn share is within four standard deviations of the binomial distribution."""
    count, draw = 20_000, random.Random(1)
    chosen = [photo_id(draw.getrandbits(128) if ids == "random" else number) for number in range(count)]
    drawn = sum(drawn_for_audit(one, share) for one in chosen)
    assert abs(drawn - count * share) < 4 * math.sqrt(count * share * (1 - share))


@given(number=st.integers(0, 2**128 - 1), one=shares, other=shares)
@settings(deadline=None)
def test_the_draw_depends_on_the_id_alone(number, one, other):
    """A larger share includes all photos of a smaller one; 0 draws none and 1 all."""
    low, high = sorted((one, other))
    assert drawn_for_audit(photo_id(number), low) <= drawn_for_audit(photo_id(number), high)
    assert not drawn_for_audit(photo_id(number), 0.0)
    assert drawn_for_audit(photo_id(number), 1.0)


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64))
def test_audits_are_drawn_by_the_node(key, other):
    """With another key other photos are drawn, so that a sender cannot choose ids that are."""
    ids = [photo_id(number) for number in range(400)]
    drawn = [one for one in ids if drawn_for_audit(one, 0.5, key)]
    assert drawn == [one for one in ids if drawn_for_audit(one, 0.5, key)]
    assert (drawn == [one for one in ids if drawn_for_audit(one, 0.5, other)]) == (
        key.ljust(64, b"\0") == other.ljust(64, b"\0")
    )
