"""How sure a model is of a photo, said in five numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serving.prediction import Prediction, bounded_novelty, probability


def said(*scores: float, temperature: float | None = None) -> Prediction:
    by_class = {f"class-{number}": score for number, score in enumerate(scores)}
    return Prediction("pets", 1, by_class, b"", temperature=temperature)


@pytest.mark.parametrize(
    ("scores", "margin", "entropy"),
    [
        ((1.0, 0.0), 1.0, 0.0),
        ((0.5, 0.5), 0.0, 1.0),
        ((0.0, 0.0, 0.0), 0.0, 1.0),  # a model that says nothing is not sure
        ((1.0,), 1.0, 0.0),
        ((0.0,), 0.0, 1.0),
        ((0.5, 0.25, 0.25, 0.0), 0.25, 0.75),
        ((0.89, 0.11), 0.78, 0.4999),
    ],
)
def test_margin_and_entropy(scores, margin, entropy):
    """Margin is the lead over the next class; entropy is 0 for one certain class and 1 for any."""
    assert said(*scores).margin == pytest.approx(margin)
    assert said(*scores).entropy == pytest.approx(entropy, abs=1e-3)


@given(logits=st.lists(st.floats(-8, 8), min_size=2, max_size=6), temperature=st.floats(0.5, 4))
@settings(deadline=None)
def test_the_raw_confidence_undoes_the_temperature(logits, temperature):
    """From calibrated scores alone comes the confidence that the same logits have without the temperature."""

    def softmax(divisor: float) -> list[float]:
        powers = [math.exp((logit - max(logits)) / divisor) for logit in logits]
        return [power / sum(powers) for power in powers]

    calibrated = said(*softmax(temperature), temperature=temperature)
    assert calibrated.raw_confidence == pytest.approx(max(softmax(1.0)), rel=1e-6)
    assert said(*softmax(temperature)).raw_confidence is None


@given(
    scores=st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 5e-324])), min_size=1, max_size=1000),
    temperature=st.floats(0.01, 100),
    novelty=st.none() | st.floats(),
)
@settings(deadline=None)
def test_any_scores_have_numbers_in_range(scores, temperature, novelty):
    """Whatever a model answers, each number is one that the contract allows."""
    one = said(*map(probability, scores), temperature=temperature)
    for value in (one.confidence, one.margin, one.entropy, one.raw_confidence):
        assert 0 <= value <= 1
    bounded = bounded_novelty(novelty)
    assert bounded is None if novelty is None else 0 <= bounded <= 1e6
