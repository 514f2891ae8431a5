"""Rules of cloud/modeling/whitening.py: directions of small variance count as much as others."""

import numpy as np
import pytest

from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.linear_head import fit_head
from cloud.modeling.whitening import DIRECTIONS, fit_whitened_head

CLASSES = 3


def photos(count: int, *, seed: int) -> tuple[Floats, Ints]:
    """Embeddings whose classes differ in components with a tenth of the others' deviation."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    loud, quiet = draw.normal(0, 1, (count, 40)), draw.normal(0, 0.02, (count, 20))
    quiet[:, :CLASSES] += 0.1 * np.eye(CLASSES)[labels]
    return np.concatenate([loud, quiet], axis=1) + 5, labels


def test_quiet_differences_need_fewer_labels() -> None:
    """Where the classes differ in directions of small variance, the same labels teach it more."""
    known, labels = photos(60, seed=1)
    others, truth = photos(600, seed=2)
    pool, _ = photos(600, seed=3)
    weights = np.ones(len(labels))
    plain = fit_head(known, labels, weights, CLASSES)
    whitened = fit_whitened_head(known, labels, weights, CLASSES, measured_on=pool)
    right = [(head.logits(others).argmax(axis=1) == truth).mean() for head in (plain, whitened)]
    assert right[1] > right[0] + 0.1


@pytest.mark.parametrize("count", [6, 60, 400])
def test_the_head_takes_embeddings_as_they_are(count: int) -> None:
    """The kernel has a row for each number, and is finite for few photos and constant numbers."""
    known, labels = photos(count, seed=4)
    known[:, 7] = 3.0
    head = fit_whitened_head(known, labels, np.ones(count), CLASSES, measured_on=known)
    assert head.kernel.shape == (known.shape[1], CLASSES)
    assert np.isfinite(head.logits(known)).all()


def test_it_is_the_same_every_time() -> None:
    """The same photos give the same head, bit by bit, also where random projections find the components."""
    wide = np.random.default_rng(5).normal(size=(500, 6 * DIRECTIONS))
    labels, weights = np.arange(500) % CLASSES, np.ones(500)
    first, second = (fit_whitened_head(wide, labels, weights, CLASSES, measured_on=wide) for _ in range(2))
    np.testing.assert_array_equal(first.kernel, second.kernel)


def test_equal_photos_have_no_direction() -> None:
    """Embeddings that are all equal give a head that prefers no class."""
    same = np.ones((30, 8))
    head = fit_whitened_head(same, np.arange(30) % CLASSES, np.ones(30), CLASSES, measured_on=same)
    assert head.logits(same[:1]) == pytest.approx(head.logits(same[:1]).mean(), abs=0.1)
