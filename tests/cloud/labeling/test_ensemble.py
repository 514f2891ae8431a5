"""Rules of cloud/labeling/ensemble.py: labels only where votes agree and were precise out of fold."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.labeling.ensemble import (
    AGREEMENT,
    OOD_QUANTILE,
    Embeddings,
    Ensemble,
    Votes,
    confidence_threshold,
    fit_ensemble,
    lane_thresholds,
    out_of_fold_votes,
)
from cloud.modeling.linear_head import Head

CLASSES = 3
_DIMENSIONS = 16


def world(count: int, seed: int, spread: float = 0.6) -> tuple[list[Embeddings], np.ndarray]:
    """Draw embeddings of three classes by two networks: a Gaussian cloud around one axis per class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = np.eye(_DIMENSIONS)[labels] * 3
    embeddings = [centres + generator.normal(0, spread, (2, count, _DIMENSIONS)) for _ in range(2)]
    return [views.astype(np.float32) for views in embeddings], labels


@pytest.mark.parametrize("views", [1, 2])
def test_ensemble_labels_new_photos_correctly(views: int) -> None:
    """New photos of the classes get their labels with high confidence, also without mirror images.

    The same seed gives the same votes.
    """
    embeddings, labels = world(60, 1)
    others, truth = world(90, 2)
    embeddings, others = ([one[:views] for one in some] for some in (embeddings, others))
    votes = fit_ensemble(embeddings, labels, CLASSES, seed=4).votes(others)
    assert (votes.labels == truth).mean() > 0.97
    assert np.median(votes.confidence) > 0.8
    again = fit_ensemble(embeddings, labels, CLASSES, seed=4).votes(others)
    np.testing.assert_array_equal(again.probabilities, votes.probabilities)


def test_out_of_distribution_photos_have_no_confidence() -> None:
    """A photo far from all labelled photos has confidence 0, although the heads are certain there."""
    embeddings, labels = world(60, 1)
    ensemble = fit_ensemble(embeddings, labels, CLASSES, seed=0)
    strange = [np.roll(views, CLASSES, axis=2) * 5 for views in world(30, 2)[0]]
    assert (ensemble.votes(strange).confidence == 0).all()
    assert (ensemble.votes(world(60, 3)[0]).confidence > 0).mean() > 0.6


def test_comparing_with_all_references_holds_no_matrix_of_all_pairs() -> None:
    """Memory does not grow with the number of photos times the number of references."""
    embeddings = [np.random.default_rng(0).normal(size=(2, 4000, 8)).astype(np.float32)]
    references = embeddings[0][0] / np.linalg.norm(embeddings[0][0], axis=1, keepdims=True)
    ensemble = Ensemble(((Head(np.eye(8, 2), np.zeros(2)),),), references, 0.999)
    tracemalloc.start()
    try:
        votes = ensemble.votes(embeddings)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert votes.in_distribution.all()
    assert peak_bytes < 4000 * 4000 * 4 / 2


def test_similarity_is_the_mean_cosine_to_the_nearest_other_photo() -> None:
    """The threshold is the quantile of each photo's mean cosine to its nearest neighbour but itself."""
    embeddings, labels = world(40, 5)
    fitted = fit_ensemble(embeddings, labels, CLASSES, seed=0)
    units = [views[0] / np.linalg.norm(views[0], axis=1, keepdims=True) for views in embeddings]
    cosines = np.mean([unit @ unit.T for unit in units], axis=0)
    np.fill_diagonal(cosines, -1.0)
    expected = np.quantile(cosines.max(axis=1), OOD_QUANTILE)
    assert fitted.min_similarity == pytest.approx(expected, abs=1e-5)
    others = world(30, 6)[0]
    other_units = [views[0] / np.linalg.norm(views[0], axis=1, keepdims=True) for views in others]
    nearest = np.mean([other @ unit.T for other, unit in zip(other_units, units, strict=True)], axis=0).max(1)
    np.testing.assert_array_equal(fitted.votes(others).in_distribution, nearest >= fitted.min_similarity)


def test_disagreeing_votes_have_no_confidence() -> None:
    """Confidence is 0 below the minimum agreement and for photos out of distribution."""
    votes = Votes(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]),
        np.array([AGREEMENT - 0.01, AGREEMENT, 1.0]),
        np.array([True, True, False]),
    )
    assert votes.confidence.tolist() == [0.0, 0.8, 0.0]
    assert votes.labels.tolist() == [0, 1, 0]


def test_votes_are_out_of_fold() -> None:
    """A wrong label does not affect the vote on its own photo; the only photo of a class is not held out."""
    embeddings, labels = world(40, 5)
    wrong = labels.copy()
    wrong[7] = (labels[7] + 1) % CLASSES
    wrong[39] = CLASSES
    held_out = out_of_fold_votes(embeddings, wrong, CLASSES + 1, seed=0)
    assert held_out is not None
    positions, votes = held_out
    assert sorted(positions) == list(range(39))
    assert votes.labels[positions == 7] == labels[7]
    assert (votes.labels == labels[positions]).mean() > 0.95
    assert out_of_fold_votes([views[:, :3] for views in embeddings], labels[:3], CLASSES, seed=0) is None


@pytest.mark.parametrize(
    ("count", "wrong", "enough"), [(23, 0, False), (24, 0, True), (60, 1, False), (74, 1, True)]
)
def test_too_few_labels_give_no_threshold(count: int, wrong: int, enough: bool) -> None:  # noqa: FBT001 - a column
    """A precision of 0.98 takes at least 24 labels, or 74 if one vote is wrong."""
    correct = np.arange(count) >= wrong
    assert (confidence_threshold(np.full(count, 0.9), correct) is not None) == enough


def test_threshold_is_above_the_errors() -> None:
    """The threshold is as low as the errors allow, and never between photos of equal confidence."""
    confidence = np.array([0.9] * 30 + [0.8] * 30 + [0.7] * 10)
    correct = np.arange(70) < 55
    assert confidence_threshold(confidence, correct) == 0.9
    assert confidence_threshold(confidence, np.ones(70, bool)) == pytest.approx(0.7)
    assert confidence_threshold(np.zeros(99), np.ones(99, bool)) is None
    assert confidence_threshold(np.zeros(0), np.ones(0, bool)) is None


@given(
    arrays.arrays(float, st.integers(0, 200), elements=st.floats(0, 1).map(lambda value: round(value, 2))),
    st.floats(0.5, 0.99),
    st.integers(0, 9),
)
def test_threshold_has_the_wanted_precision(confidence: np.ndarray, precision: float, seed: int) -> None:
    """From the threshold on, the expected precision is at least the wanted one."""
    correct = np.random.default_rng(seed).random(len(confidence)) < 0.9 + seed / 90
    threshold = confidence_threshold(confidence, correct, precision)
    if threshold is not None:
        confident = confidence >= threshold
        assert (correct[confident].sum() + 0.5) / (confident.sum() + 1) >= precision
        assert threshold > 0
        stricter = confidence_threshold(confidence, correct, (1 + precision) / 2)
        assert stricter is None or stricter >= threshold


def test_lanes_have_thresholds_of_their_own() -> None:
    """Imported photos do not count, lane hard needs labels in lane hard, and too few labels give infinity."""
    confidence, place = np.linspace(0.5, 1, 120), np.arange(120)
    sampled, hard = place % 3 > 0, place % 3 == 2
    correct = ~hard | (confidence > 0.7)
    of_others, of_hard = lane_thresholds(confidence, correct, sampled, hard)
    assert (of_others, of_hard) == (pytest.approx(0.7, abs=0.02), pytest.approx(0.7, abs=0.02))
    of_others, of_hard = lane_thresholds(confidence, correct, sampled, hard & (place < 60))
    assert (of_others, of_hard) == (pytest.approx(0.7, abs=0.02), np.inf)
    imported = np.zeros(120, bool)
    assert lane_thresholds(confidence, np.ones(120, bool), imported, imported) == (np.inf, np.inf)
