"""Uncertainty of a prediction, as the harvest rules compare it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.uncertainty import uncertainty


def entropy(*shares: float) -> float:
    return sum(-share * math.log(share) for share in shares if share) / math.log(len(shares))


@given(st.floats(0.5, 1))
def test_of_two_classes_it_is_their_entropy(confidence):
    """Both terms agree, so the larger of them is the entropy."""
    expected = entropy(confidence, 1 - confidence)
    assert uncertainty(confidence, 2 * confidence - 1, expected) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("confidence", "margin", "all_classes", "expected"),
    [
        (1.0, 1.0, 0.0, 0.0),
        (0.5, 0.0, 0.1, 1.0),
        (0.4, 0.2, 0.1, entropy(2 / 3, 1 / 3)),
        (0.5, 0.5, 0.9, 0.9),
        (0.0, 0.0, 0.0, 1.0),
    ],
)
def test_it_is_the_larger_of_both_entropies(confidence, margin, all_classes, expected):
    """That of all classes, and that of the first two renormalised; equal zeros are a tie."""
    assert uncertainty(confidence, margin, all_classes) == pytest.approx(expected)


@given(st.floats(), st.floats(), st.floats(0, 1) | st.just(math.nan))
def test_any_numbers_give_a_share_or_nan(confidence, margin, all_classes):
    """Nothing raises; NaN in, or a second class without a probability, gives NaN."""
    found = uncertainty(confidence, margin, all_classes)
    assert math.isnan(found) or 0 <= found <= 1
    if math.isnan(all_classes) or math.isnan(confidence) or math.isnan(margin):
        assert math.isnan(found)
