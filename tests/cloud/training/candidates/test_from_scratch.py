"""Training from scratch: steps, batches and augmentation. That it learns is tested in test_train."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.modeling.backbones import COMPACT, XCEPTION_SMALL
from cloud.training.candidates import from_scratch

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def test_augmentation_is_reproducible() -> None:
    """The same draw gives the same images, also in parts; another draw gives other images."""
    photos = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    one, same, other = (
        from_scratch.augmented(photos, np.array([7, step]), slice(4), 4, XCEPTION_SMALL).numpy()
        for step in (1, 1, 2)
    )
    assert one.shape == photos.shape
    half = from_scratch.augmented(photos[2:], np.array([7, 1]), slice(2, 4), 4, XCEPTION_SMALL).numpy()
    np.testing.assert_array_equal(half, one[2:])
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.1


def test_digits_are_not_mirrored() -> None:
    """Without mirroring, what is on the left of a photo stays on the left, in all of many draws."""
    photos = np.zeros((64, 32, 32, 3), np.float32)
    photos[:, :, :16] = 1.0
    kept, some = (
        from_scratch.augmented(photos, np.array([7, 1]), slice(64), 64, backbone).numpy()
        for backbone in (COMPACT, XCEPTION_SMALL)
    )
    left, right = kept[:, :, 0].mean(axis=(1, 2)), kept[:, :, -1].mean(axis=(1, 2))
    assert (left >= right - 1e-6).all()
    assert (some[:, :, 0].mean(axis=(1, 2)) < some[:, :, -1].mean(axis=(1, 2)) - 0.5).any()


def test_digits_are_cropped_less() -> None:
    """A part of a digit may be another one: a crop keeps at least four fifths of its width."""
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32)[:, None], (64, 32, 1, 3))
    extents = []
    for backbone in (COMPACT, XCEPTION_SMALL):
        images = from_scratch.augmented(ramp, np.array([7, 1]), slice(64), 64, backbone).numpy()
        span = np.abs(images[:, 16, -1, 0] - images[:, 16, 0, 0])
        # A gain of the contrast stretches the span by up to a fifth.
        extents.append(span.min())
    assert extents[0] > 0.8 * 0.8 - 0.01
    assert extents[1] < extents[0]


def test_the_number_of_steps_follows_the_number_of_photos() -> None:
    """The number of steps is proportional to the number of photos, within bounds."""
    fewest, most = from_scratch.STEPS
    assert from_scratch.step_count(2) == fewest
    assert from_scratch.step_count(10**6) == most
    assert from_scratch.step_count(800) == 800 * from_scratch.EPOCHS // from_scratch.BATCH_PHOTOS


def test_batches_follow_the_weights() -> None:
    """Photos are sampled in proportion to their weight, and reproducibly."""
    human, weights = np.array([True, True, False]), np.array([0.5, 0.25, 0.25])
    drawn = np.concatenate(list(from_scratch._batches(human, weights, 50, seed=1)))
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), weights, atol=0.05)
    np.testing.assert_array_equal(
        drawn, np.concatenate(list(from_scratch._batches(human, weights, 50, seed=1)))
    )


@given(share=st.floats(0.5, 1.0), seed=st.integers(0, 99))
@settings(deadline=None)
def test_half_of_each_batch_has_human_labels(share: float, seed: int) -> None:
    """At least half of each batch has human labels."""
    human = np.arange(10) < 5
    weights = np.where(human, share, 1 - share) / 5
    for batch in from_scratch._batches(human, weights, 5, seed):
        assert len(batch) == from_scratch.BATCH_PHOTOS
        assert human[batch].sum() >= from_scratch.BATCH_PHOTOS / 2
