"""Rules of cloud/modeling/novelty.py: out-of-distribution photos have a novelty above 1."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cloud.modeling.novelty import MAX_PROTOTYPES, fit_novelty, novelty_scores


def around(direction: int, count: int, seed: int, spread: float = 0.1) -> np.ndarray:
    """Return embeddings `[count, 16]` of random length near one axis."""
    generator = np.random.default_rng(seed)
    vectors = np.eye(16)[direction] + generator.normal(0, spread, (count, 16))
    return (vectors * generator.uniform(0.5, 2.0, (count, 1))).astype(np.float32)


def test_one_known_photo_in_twenty_is_novel_and_all_foreign_ones():
    """The threshold of 1 holds for new photos, with and without a sample of prototypes."""
    for count in (200, 2000):
        model = fit_novelty(around(0, count, seed=1))
        assert len(model.prototypes) == min(count, MAX_PROTOTYPES)
        share = (novelty_scores(model, around(0, 4000, seed=2)) > 1).mean()
        assert 0.025 < share < 0.1, count
        assert (novelty_scores(model, around(5, 100, seed=2)) > 1).all()


def test_a_training_photo_has_no_novelty():
    """Training photos are at distance 0, for embeddings of any length; the fit is deterministic."""
    photos = around(0, 50, seed=1)
    model = fit_novelty(photos)
    np.testing.assert_allclose(novelty_scores(model, 7 * photos), 0, atol=1e-4)
    np.testing.assert_array_equal(model.prototypes, fit_novelty(photos).prototypes)


def test_further_photos_replace_few_prototypes():
    """A sample of 2000 photos and of 20 more differ in about as many rows as photos were added."""
    photos = around(0, 2020, seed=1)
    before, after = ({row.tobytes() for row in fit_novelty(photos[:n]).prototypes} for n in (2000, 2020))
    assert len(before - after) < 20
    assert len(before & after) > MAX_PROTOTYPES - 20


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
@settings(deadline=None)
def test_any_training_set_gives_finite_novelties(photos):
    """With one photo, equal photos or zero embeddings, the novelty is finite and at least 0."""
    model = fit_novelty(photos)
    values = novelty_scores(model, photos)
    assert model.scale > 0
    assert values.shape == (len(photos),)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
