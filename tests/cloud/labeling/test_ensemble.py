"""Rules of cloud/labeling/ensemble.py: a teacher labels where it agrees with itself and was right before."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.labeling import ensemble
from cloud.labeling.ensemble import (
    AGREEMENT,
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
    """Draw photos of three classes as two networks see them: clouds around a corner each."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    corners = np.eye(_DIMENSIONS)[labels] * 3
    sights = [corners + generator.normal(0, spread, (2, count, _DIMENSIONS)) for _ in range(2)]
    return [sight.astype(np.float32) for sight in sights], labels


def test_a_teacher_knows_what_it_was_taught() -> None:
    """Photos of the classes get their labels, with high sureness; the same seed gives the same opinions."""
    sights, labels = world(60, 1)
    others, truth = world(90, 2)
    votes = fit_ensemble(sights, labels, CLASSES, seed=4).votes(others)
    assert (votes.labels == truth).mean() > 0.97
    assert np.median(votes.confidence) > 0.8
    again = fit_ensemble(sights, labels, CLASSES, seed=4).votes(others)
    np.testing.assert_array_equal(again.probabilities, votes.probabilities)


def test_what_is_like_nothing_it_was_taught_it_is_not_sure_of() -> None:
    """A head is most certain far from everything; the distance to people's photos tells that it guesses."""
    sights, labels = world(60, 1)
    ensemble = fit_ensemble(sights, labels, CLASSES, seed=0)
    strange = [np.roll(sight, CLASSES, axis=2) * 5 for sight in world(30, 2)[0]]
    assert (ensemble.votes(strange).confidence == 0).all()
    assert (ensemble.votes(world(60, 3)[0]).confidence > 0).mean() > 0.6


def test_comparing_with_all_photos_takes_no_more_memory_than_a_block() -> None:
    """Each photo is held against each that people labelled, and never all against all at once."""
    sights = [np.random.default_rng(0).normal(size=(2, 4000, 8)).astype(np.float32)]
    memory = tuple(sight[0] / np.linalg.norm(sight[0], axis=1, keepdims=True) for sight in sights)
    ensemble = Ensemble(((Head(np.eye(8, 2), np.zeros(2)),),), memory, 0.999)
    tracemalloc.start()
    try:
        votes = ensemble.votes(sights)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert votes.familiar.all()
    assert peak_bytes < 4000 * 4000 * 4 / 2


def test_blocks_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one ends, a photo is still not its own neighbour."""
    sights, labels = world(40, 5)
    whole = fit_ensemble(sights, labels, CLASSES, seed=0)
    monkeypatch.setattr(ensemble, "_BLOCK_PHOTOS", 7)
    parted = fit_ensemble(sights, labels, CLASSES, seed=0)
    assert parted.least_likeness == pytest.approx(whole.least_likeness, abs=1e-5)
    others = world(30, 6)[0]
    np.testing.assert_array_equal(parted.votes(others).familiar, whole.votes(others).familiar)


def test_without_agreement_there_is_no_sureness() -> None:
    """A high mean of votes that contradict each other counts for nothing."""
    votes = Votes(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]),
        np.array([AGREEMENT - 0.01, AGREEMENT, 1.0]),
        np.array([True, True, False]),
    )
    assert votes.confidence.tolist() == [0.0, 0.8, 0.0]
    assert votes.labels.tolist() == [0, 1, 0]


def test_each_photo_is_judged_by_those_who_did_not_see_it() -> None:
    """A label that contradicts the photo does not teach its own judge; a class's only photo is not judged."""
    sights, labels = world(40, 5)
    wrong = labels.copy()
    wrong[7] = (labels[7] + 1) % CLASSES
    wrong[39] = CLASSES
    judged = out_of_fold_votes(sights, wrong, CLASSES + 1, seed=0)
    assert judged is not None
    positions, votes = judged
    assert sorted(positions) == list(range(39))
    assert votes.labels[positions == 7] == labels[7]
    assert (votes.labels == labels[positions]).mean() > 0.95
    assert out_of_fold_votes([sight[:, :3] for sight in sights], labels[:3], CLASSES, seed=0) is None


@pytest.mark.parametrize(
    ("count", "wrong", "taught"), [(23, 0, False), (24, 0, True), (60, 1, False), (74, 1, True)]
)
def test_too_few_labels_allow_no_teacher(count: int, wrong: int, taught: bool) -> None:  # noqa: FBT001 - a column
    """Of a precision of 0.98 fewer than 24 labels say nothing, and with an error fewer than 74."""
    right = np.arange(count) >= wrong
    assert (confidence_threshold(np.full(count, 0.9), right) is not None) == taught


def test_errors_push_the_threshold_above_them() -> None:
    """As much as possible is labelled, but not where it was wrong; equally sure ones go together."""
    confidence = np.array([0.9] * 30 + [0.8] * 30 + [0.7] * 10)
    right = np.arange(70) < 55
    assert confidence_threshold(confidence, right) == 0.9
    assert confidence_threshold(confidence, np.ones(70, bool)) == pytest.approx(0.7)
    assert confidence_threshold(np.zeros(99), np.ones(99, bool)) is None
    assert confidence_threshold(np.zeros(0), np.ones(0, bool)) is None


@given(
    arrays.arrays(float, st.integers(0, 200), elements=st.floats(0, 1).map(lambda value: round(value, 2))),
    st.floats(0.5, 0.99),
    st.integers(0, 9),
)
def test_what_is_labelled_was_right_often_enough(confidence: np.ndarray, precision: float, seed: int) -> None:
    """Whatever the sureness: from the threshold on the expected precision is the wanted one."""
    right = np.random.default_rng(seed).random(len(confidence)) < 0.9 + seed / 90
    threshold = confidence_threshold(confidence, right, precision)
    if threshold is not None:
        sure = confidence >= threshold
        assert (right[sure].sum() + 0.5) / (sure.sum() + 1) >= precision
        assert threshold > 0
        stricter = confidence_threshold(confidence, right, (1 + precision) / 2)
        assert stricter is None or stricter >= threshold


def test_a_lane_is_trusted_by_its_own_labels() -> None:
    """Imported photos buy no trust for samples, easy samples none for hard ones, too few none at all."""
    confidence, place = np.linspace(0.5, 1, 120), np.arange(120)
    sampled, hard = place % 3 > 0, place % 3 == 2
    right = ~hard | (confidence > 0.7)
    of_others, of_hard = lane_thresholds(confidence, right, sampled, hard)
    assert (of_others, of_hard) == (pytest.approx(0.7, abs=0.02), pytest.approx(0.7, abs=0.02))
    of_others, of_hard = lane_thresholds(confidence, right, sampled, hard & (place < 60))
    assert (of_others, of_hard) == (pytest.approx(0.7, abs=0.02), np.inf)
    imported = np.zeros(120, bool)
    assert lane_thresholds(confidence, np.ones(120, bool), imported, imported) == (np.inf, np.inf)
