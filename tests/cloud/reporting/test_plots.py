"""Plots of a version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.metrics import measure
from cloud.reporting.plots import curve, recall_bars, reliability_bins, reliability_diagram
from tests.html_page import Page


def test_bins_have_confidence_accuracy_and_interval() -> None:
    """Answers of one tenth are one bin; confidence 1 belongs to the last."""
    bins = reliability_bins(np.array([0.51, 0.59, 0.98, 1.0]), np.array([True, False, True, True]))
    assert [(one.confidence, one.accuracy, one.photos) for one in bins] == [
        (pytest.approx(0.55), 0.5, 2),
        (pytest.approx(0.99), 1.0, 2),
    ]
    assert all(one.low <= one.accuracy <= one.high for one in bins)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
def test_every_diagram_is_well_formed(answers: list[tuple[float, bool]]) -> None:
    """Every photo is in one bin, and a photo of any confidence can be drawn."""
    confidence = np.array([one for one, _ in answers], np.float64)
    bins = reliability_bins(confidence, np.array([right for _, right in answers], bool))
    assert sum(one.photos for one in bins) == len(answers)
    Page(reliability_diagram(bins))


def test_recall_bars_name_the_photos() -> None:
    """A class without photos has no bar; names are escaped."""
    metrics = measure(np.eye(3)[[0, 1, 0]], np.array([0, 0, 0]), ["<a>", "b", "c"])
    page = Page(recall_bars(metrics, ["<a>", "b", "c"]))
    assert "66.7% of 3" in page.text
    assert "<a>" in page.text
    assert page.count("rect", "bar") == 1


def test_a_curve_without_points_is_nothing() -> None:
    """Frozen backbones have no steps."""
    assert not curve({}, "loss")
    assert not curve({"human": []}, "loss")
    assert "9 steps" in Page(curve({"human": [(0, 0.0), (9, 0.0)]}, "loss")).text
