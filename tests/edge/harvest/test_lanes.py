"""What the model says chooses the lane; whatever it says, there is a lane or a named refusal."""

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import structs

from edge.harvest.lanes import drawn_for_audit, lane_of
from edge.serving.prediction import Prediction, clamp_novelty, clamp_probability
from schemas.messages import HarvestRules
from tests.nodes import photo_id

RULES = HarvestRules(auto_confidence=0.9, uncertain_above=0.5)
OFF = structs.replace(RULES, auto=False)
REFUSALS = {"between-thresholds", "auto-off"}


class ModelScores(NamedTuple):
    """What a model may say, freely chosen."""

    confidence: float = 0.95
    margin: float = 0.9
    entropy: float = 0.2
    novelty: float | None = 0.5
    label: str = "cat"


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        (ModelScores(), ("auto", None)),
        (ModelScores(confidence=0.9), ("auto", None)),
        (ModelScores(confidence=0.8999, margin=0.8), (None, "between-thresholds")),
        (ModelScores(confidence=0.3, margin=0.3), (None, "between-thresholds")),
        (ModelScores(entropy=0.5, novelty=1.0), ("auto", None)),
        (ModelScores(margin=0.1), ("hard", None)),
        (ModelScores(entropy=0.5001), ("hard", None)),
        (ModelScores(novelty=1.0001), ("hard", None)),
        (ModelScores(novelty=None), ("auto", None)),
        (ModelScores(confidence=math.nan), ("hard", None)),
        (ModelScores(margin=math.nan), ("hard", None)),
        (ModelScores(entropy=math.nan), ("hard", None)),
        (ModelScores(novelty=math.nan), ("hard", None)),
    ],
)
def test_doubt_of_any_kind_is_hard_and_certainty_auto(said, decision):
    """Each score has its threshold, no number is doubt, and what is neither hard nor auto is refused."""
    assert lane_of(said, RULES) == decision


def test_a_class_may_have_a_threshold_of_its_own():
    """Where the model is known to be wrong more often, it has to be surer."""
    rules = structs.replace(RULES, auto_by_class={"dog": 0.99})
    assert lane_of(ModelScores(label="cat"), rules).lane == "auto"
    assert lane_of(ModelScores(label="dog"), rules).refused == "between-thresholds"
    assert lane_of(ModelScores(label="dog", confidence=0.99), rules).lane == "auto"


def test_the_switch_costs_the_lane_auto_alone():
    """Switched off, what would be auto is refused by that name; nothing else changes."""
    assert lane_of(ModelScores(), OFF) == (None, "auto-off")
    assert lane_of(ModelScores(confidence=0.8, margin=0.75), OFF) == (None, "between-thresholds")
    assert lane_of(ModelScores(margin=0.1), OFF) == ("hard", None)


def test_a_flip_is_hard_however_sure_the_model_is():
    """Nearly the same view under another name: one of the two is wrong."""
    assert lane_of(ModelScores(confidence=1.0, margin=1.0, entropy=0.0), RULES, flipped=True).lane == "hard"
    assert lane_of(ModelScores(), OFF, flipped=True).lane == "hard"


def former_lane(said: Prediction, rules: HarvestRules) -> str | None:
    """Return the lane by the three former rules: confidence, margin and entropy."""
    certain = (
        said.confidence >= rules.hard_confidence
        and said.margin >= rules.hard_margin
        and said.entropy <= rules.uncertain_above
    )
    if not certain:
        return "hard"
    return "auto" if said.confidence >= rules.auto_confidence else None


@given(
    cat=st.floats(0, 1) | st.floats(0.88, 0.9),
    auto_confidence=st.floats(0, 1),
    uncertain_above=st.just(0.5) | st.floats(0, 0.811),
)
@settings(deadline=None)
def test_with_two_classes_the_lane_is_that_of_the_three_former_rules(cat, auto_confidence, uncertain_above):
    """With two classes the former defaults of confidence and margin never decided; the entropy did."""
    said = Prediction("pets", 1, {"cat": cat, "dog": 1 - cat}, b"")
    assume(abs(said.entropy - uncertain_above) > 1e-9)  # rounding differs
    rules = HarvestRules(auto_confidence=auto_confidence, uncertain_above=uncertain_above)
    assert lane_of(said, rules).lane == former_lane(said, rules)


@given(st.floats(0.5, 1))
def test_the_deprecated_rules_decide_nothing(confidence):
    """`hard_confidence` and `hard_margin` are read from an older policy and ignored."""
    said = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
    strict = structs.replace(RULES, hard_confidence=1.0, hard_margin=1.0)
    assert lane_of(said, strict) == lane_of(said, RULES)


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
    """No scores or thresholds raise or fall between: exactly one of lane and refusal is there."""
    by_class = {f"class-{number}": clamp_probability(score) for number, score in enumerate(scores * times)}
    said = Prediction("pets", 1, by_class, b"", clamp_novelty(novelty))
    chosen = lane_of(said, rules, flipped=flipped)
    assert (chosen.lane in ("auto", "hard")) != (chosen.refused in REFUSALS)
    assert (chosen.lane is None) != (chosen.refused is None)


@given(scores=st.lists(numbers, min_size=5, max_size=5))
@settings(deadline=None)
def test_any_numbers_at_all_get_a_lane_or_a_named_refusal(scores):
    """The same where a caller has its numbers from elsewhere and checked none of them."""
    said = ModelScores(*scores[:4])
    chosen = lane_of(said, RULES)
    assert (chosen.lane in ("auto", "hard")) != (chosen.refused in REFUSALS)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.3])
@pytest.mark.parametrize("ids", ["random", "counted"])
def test_the_audit_is_a_uniform_share(share, ids):
    """Of 20 000 ids so many are drawn as of a fair lottery, within four standard deviations."""
    count, draw = 20_000, random.Random(1)
    chosen = [photo_id(draw.getrandbits(128) if ids == "random" else number) for number in range(count)]
    drawn = sum(drawn_for_audit(one, share) for one in chosen)
    assert abs(drawn - count * share) < 4 * math.sqrt(count * share * (1 - share))


@given(number=st.integers(0, 2**128 - 1), one=shares, other=shares)
@settings(deadline=None)
def test_a_photo_is_drawn_the_same_again(number, one, other):
    """The draw hangs on the id alone; a larger share draws all of a smaller one, 0 none and 1 all."""
    low, high = sorted((one, other))
    assert drawn_for_audit(photo_id(number), low) <= drawn_for_audit(photo_id(number), high)
    assert not drawn_for_audit(photo_id(number), 0.0)
    assert drawn_for_audit(photo_id(number), 1.0)
