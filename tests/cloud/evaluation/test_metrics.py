"""Metrics of a model, compared with precomputed values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cloud.evaluation.metrics import calibration_error, confusion_matrix, measure, p_words, wilson_interval


def test_metrics_of_five_answers() -> None:
    """Accuracy, recall and confusion have their exact values; a class without photos has no recall."""
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.1, 0.9, 0]])
    metrics = measure(probabilities, np.array([0, 0, 1, 1, 1]), ("cat", "dog", "fox"))
    assert metrics.photos == 5
    assert metrics.accuracy == pytest.approx(0.8)
    assert metrics.recall == {"cat": 0.5, "dog": 1.0}
    assert metrics.confusion == [[1, 1, 0], [0, 3, 0], [0, 0, 0]]
    assert metrics.mean_confidence == pytest.approx(0.78)


def test_wilson_interval_of_published_examples() -> None:
    """The bounds match the published ones for 81 of 263 and 15 of 148 (Newcombe 1998)."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


@given(count=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_interval_contains_the_share(count: int, share: float) -> None:
    """The bounds lie in [0, 1] and around the observed share, and match scipy for whole numbers."""
    right = round(count * share)
    low, high = wilson_interval(right, count)
    assert 0 <= low <= right / count + 1e-12
    assert right / count - 1e-12 <= high <= 1
    reference = binomtest(right, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-6)


def test_confusion_counts_truth_by_row() -> None:
    """Rows are true labels, columns are answers."""
    counts = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert counts.tolist() == [[0, 2], [0, 1]]


def test_calibration_error_of_calibrated_and_overconfident_answers() -> None:
    """80 % confidence at 80 % accuracy is an error of 0; 100 % at 50 % accuracy is 0.5."""
    right = np.array([True, True, True, True, False])
    assert calibration_error(np.full(5, 0.8), right) == pytest.approx(0)
    assert calibration_error(np.full(4, 1.0), np.array([True, False, True, False])) == pytest.approx(0.5)


def test_calibration_errors_of_different_bins_do_not_cancel() -> None:
    """Overconfidence in one bin and underconfidence in another add up."""
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([False, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx((0.9 + 0.4) / 2)


def test_no_p_value_is_printed_as_zero() -> None:
    """What would be rounded to 0.000 is below 0.001."""
    assert [p_words(value) for value in (0.25, 0.0006, 0.0004, 0.0)] == [
        "p = 0.250",
        "p = 0.001",
        "p < 0.001",
        "p < 0.001",
    ]
