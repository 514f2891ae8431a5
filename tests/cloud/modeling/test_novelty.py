"""Novelty: photos unlike all that a model was trained on have a value above 1."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cloud.modeling.novelty import MOST_PROTOTYPES, fit_novelty, novelty_of


def around(direction: int, count: int, seed: int, spread: float = 0.1) -> np.ndarray:
    """Return embeddings `[count, 16]` of any length near one axis."""
    generator = np.random.default_rng(seed)
    vectors = np.eye(16)[direction] + generator.normal(0, spread, (count, 16))
    return (vectors * generator.uniform(0.5, 2.0, (count, 1))).astype(np.float32)


def test_one_known_photo_in_twenty_is_novel_and_foreign_ones_are():
    """The threshold of 1 keeps what it promises on new photos, with and without a sample of prototypes."""
    for count in (200, 2000):
        model = fit_novelty(around(0, count, seed=1), seed=3)
        assert len(model.prototypes) == min(count, MOST_PROTOTYPES)
        share = (novelty_of(model, around(0, 4000, seed=2)) > 1).mean()
        assert 0.025 < share < 0.1, count
        assert (novelty_of(model, around(5, 100, seed=2)) > 1).all()


def test_a_photo_of_the_training_is_no_news():
    """What was trained on is at distance 0, whatever the length of its embedding; a seed repeats a fit."""
    photos = around(0, 50, seed=1)
    model = fit_novelty(photos, seed=0)
    np.testing.assert_allclose(novelty_of(model, 7 * photos), 0, atol=1e-4)
    np.testing.assert_array_equal(model.prototypes, fit_novelty(photos, seed=0).prototypes)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
@settings(deadline=None)
def test_any_training_set_gives_a_measure(photos):
    """One photo, equal photos, embeddings of nothing but zeros: novelty is finite and at least 0."""
    model = fit_novelty(photos, seed=0)
    values = novelty_of(model, photos)
    assert model.scale > 0
    assert values.shape == (len(photos),)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
