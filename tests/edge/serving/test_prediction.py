"""Confidence, margin, entropy, raw confidence and novelty of a prediction."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serving.prediction import Prediction, clamp_novelty, clamp_probability


def prediction(*scores: float, temperature: float | None = None) -> Prediction:
    by_class = {f"class-{number}": score for number, score in enumerate(scores)}
    return Prediction("pets", 1, by_class, b"", temperature=temperature)


@pytest.mark.parametrize(
    ("scores", "margin", "entropy"),
    [
        ((1.0, 0.0), 1.0, 0.0),
        ((0.5, 0.5), 0.0, 1.0),
        ((0.0, 0.0, 0.0), 0.0, 1.0),  # no probability at all counts as uncertain
        ((1.0,), 1.0, 0.0),
        ((0.0,), 0.0, 1.0),
        ((0.5, 0.25, 0.25, 0.0), 0.25, 0.75),
        ((0.89, 0.11), 0.78, 0.4999),
    ],
)
def test_margin_and_entropy(scores, margin, entropy):
    """Margin is the lead over the second class; entropy is 0 for a certain class and 1 for uniform scores."""
    assert prediction(*scores).margin == pytest.approx(margin)
    assert prediction(*scores).entropy == pytest.approx(entropy, abs=1e-3)


@given(logits=st.lists(st.floats(-8, 8), min_size=2, max_size=6), temperature=st.floats(0.5, 4))
@settings(deadline=None)
def test_raw_confidence_undoes_the_temperature(logits, temperature):
    """Computed from calibrated scores, it equals the softmax of the logits without temperature."""

    def softmax(divisor: float) -> list[float]:
        powers = [math.exp((logit - max(logits)) / divisor) for logit in logits]
        return [power / sum(powers) for power in powers]

    calibrated = prediction(*softmax(temperature), temperature=temperature)
    assert calibrated.raw_confidence == pytest.approx(max(softmax(1.0)), rel=1e-6)
    assert prediction(*softmax(temperature)).raw_confidence is None


@given(
    scores=st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 5e-324])), min_size=1, max_size=1000),
    temperature=st.floats(0.01, 100),
    novelty=st.none() | st.floats(),
)
@settings(deadline=None)
def test_all_figures_are_within_the_contract(scores, temperature, novelty):
    """For any output of a model, NaN included."""
    figures = prediction(*map(clamp_probability, scores), temperature=temperature)
    for value in (figures.confidence, figures.margin, figures.entropy, figures.raw_confidence):
        assert 0 <= value <= 1
    bounded = clamp_novelty(novelty)
    assert bounded is None if novelty is None else 0 <= bounded <= 1e6
