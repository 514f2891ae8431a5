"""Logistic regression and temperature."""

import numpy as np
import pytest

from cloud.modeling.arrays import Floats, Ints, cross_entropy, softmax
from cloud.modeling.linear_head import fit_head, fit_temperature


def clusters(count: int, classes: int, dim: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Draw points around one centre per class."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * 2
    labels = np.arange(count) % classes
    return centres[labels] + generator.normal(size=(count, dim)), labels


@pytest.mark.parametrize(("count", "dim"), [(12, 50), (300, 8)])
def test_a_head_separates_what_can_be_separated(count: int, dim: int) -> None:
    """It learns three classes, with fewer points than dimensions and with more."""
    points, labels = clusters(count, 3, dim)
    head = fit_head(points, labels, np.ones(count), 3)
    unseen, truth = clusters(300, 3, dim, seed=1)
    assert np.mean(head.logits(unseen).argmax(axis=1) == truth) > 0.9


def test_the_optimum_does_not_depend_on_how_the_bound_is_inverted() -> None:
    """Every point twice with half the weight is the same problem, solved in the other space."""
    points, labels = clusters(30, 3, 40)
    once = fit_head(points, labels, np.ones(30), 3)
    twice = fit_head(
        np.vstack([points, points]),
        np.concatenate([labels, labels]),
        np.r_[np.ones(30), np.full(30, 1e-9)],
        3,
    )
    np.testing.assert_allclose(once.logits(points), twice.logits(points), atol=1e-2)


def test_the_scale_of_embeddings_does_not_matter() -> None:
    """A backbone with embeddings a thousand times as large gives the same answers."""
    points, labels = clusters(40, 2, 10)
    small, large = (fit_head(points * s, labels, np.ones(40), 2) for s in (1, 1000))
    np.testing.assert_allclose(small.logits(points), large.logits(points * 1000), atol=1e-3)


def test_weights_say_whom_to_believe() -> None:
    """Where two examples contradict each other, the heavier one wins."""
    points, labels = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), np.array([0, 1, 1])
    for heavy in (0, 1):
        weights = np.where(np.arange(3) == heavy, 10.0, 1.0)
        assert fit_head(points, labels, weights, 2).logits(points[:1]).argmax() == heavy


def test_temperature_is_recovered() -> None:
    """Logits that are three times too large get a temperature near three, and right ones near one."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3)) * 2
    labels = np.array([generator.choice(3, p=p) for p in softmax(logits)])
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.1)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("classes", [2, 4])
def test_ten_right_answers_claim_no_certainty(classes: int) -> None:
    """However large the logits, five right answers per class give about 6/7, as Platt's targets say.

    More classes make it no more modest: else a version that knows one more would seem worse calibrated.
    """
    labels = np.arange(5 * classes) % classes
    logits = np.eye(classes)[labels] * 20
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    np.testing.assert_allclose(confidence, 6 / 7, atol=0.01)


def test_without_held_out_answers_the_temperature_is_one() -> None:
    """Nothing held out leaves the logits as they are."""
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, np.int64)) == 1.0


def test_cross_entropy_of_a_sure_mistake_is_finite() -> None:
    """A probability of 0 for the truth costs much, but not infinitely much."""
    assert 20 < cross_entropy(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) < 30
