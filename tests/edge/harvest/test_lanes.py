"""What the model says chooses the lane; whatever it says, there is a lane or a named refusal."""

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from edge.harvest.lanes import drawn_for_audit, lane_of
from edge.serving.prediction import Prediction, clamp_novelty, clamp_probability
from schemas.messages import HarvestRules
from tests.nodes import photo_id

RULES = HarvestRules(auto_confidence=0.9, hard_confidence=0.75, hard_margin=0.2, hard_entropy=0.5)
OFF = structs.replace(RULES, auto=False)
REFUSALS = {"between-thresholds", "auto-off"}


class Said(NamedTuple):
    """What a model may say, freely chosen."""

    confidence: float = 0.95
    margin: float = 0.9
    entropy: float = 0.2
    novelty: float | None = 0.5
    label: str = "cat"


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        (Said(), ("auto", None)),
        (Said(confidence=0.9), ("auto", None)),
        (Said(confidence=0.8999), (None, "between-thresholds")),
        (Said(confidence=0.75), (None, "between-thresholds")),
        (Said(confidence=0.7499), ("hard", None)),
        (Said(margin=0.2, entropy=0.5, novelty=1.0), ("auto", None)),
        (Said(margin=0.1999), ("hard", None)),
        (Said(entropy=0.5001), ("hard", None)),
        (Said(novelty=1.0001), ("hard", None)),
        (Said(novelty=None), ("auto", None)),
        (Said(confidence=math.nan), ("hard", None)),
        (Said(margin=math.nan), ("hard", None)),
        (Said(entropy=math.nan), ("hard", None)),
        (Said(novelty=math.nan), ("hard", None)),
    ],
)
def test_doubt_of_any_kind_is_hard_and_certainty_auto(said, decision):
    """Each score has its threshold, no number is doubt, and what is neither hard nor auto is refused."""
    assert lane_of(said, RULES) == decision


def test_a_class_may_have_a_threshold_of_its_own():
    """Where the model is known to be wrong more often, it has to be surer."""
    rules = structs.replace(RULES, auto_by_class={"dog": 0.99})
    assert lane_of(Said(label="cat"), rules).lane == "auto"
    assert lane_of(Said(label="dog"), rules).refused == "between-thresholds"
    assert lane_of(Said(label="dog", confidence=0.99), rules).lane == "auto"


def test_the_switch_costs_the_lane_auto_alone():
    """Switched off, what would be auto is refused by that name; nothing else changes."""
    assert lane_of(Said(), OFF) == (None, "auto-off")
    assert lane_of(Said(confidence=0.8), OFF) == (None, "between-thresholds")
    assert lane_of(Said(margin=0.1), OFF) == ("hard", None)


def test_a_flip_is_hard_however_sure_the_model_is():
    """Nearly the same view under another name: one of the two is wrong."""
    assert lane_of(Said(confidence=1.0, margin=1.0, entropy=0.0), RULES, flipped=True).lane == "hard"
    assert lane_of(Said(), OFF, flipped=True).lane == "hard"


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
        hard_entropy=shares,
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
    said = Said(*scores[:4])
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
