"""Rules of cloud/modeling/alignment.py: embeddings of different cameras become comparable."""

import numpy as np
import pytest

from cloud.modeling.alignment import align, fold, measure_moments, moments_by_group
from cloud.modeling.linear_head import Head


def test_two_cameras_with_the_same_scenes_become_equal() -> None:
    """A shift and a stretch of each component by the camera disappear."""
    scenes = np.random.default_rng(1).normal(size=(400, 6))
    embeddings = np.concatenate([scenes, scenes * np.linspace(1, 2, 6) + 3])
    groups = ["a"] * 400 + ["b"] * 400
    aligned = align(embeddings, groups, moments_by_group(embeddings, groups))
    apart = np.linalg.norm(aligned[:400] - aligned[400:], axis=1).mean()
    assert apart < 0.5 < np.linalg.norm(aligned[:400], axis=1).mean()


def test_a_group_of_few_photos_is_hardly_aligned() -> None:
    """The moments of one photo are mostly those of all photos: its content is not subtracted."""
    embeddings = np.random.default_rng(2).normal(size=(201, 4))
    groups = ["many"] * 200 + ["one"]
    moments = moments_by_group(embeddings, groups)
    overall = measure_moments(embeddings)
    np.testing.assert_allclose(moments["one"].mean, overall.mean * 20 / 21 + embeddings[-1] / 21)
    assert (moments["one"].scale > 0.9 * overall.scale).all()


def test_a_constant_component_stays_finite() -> None:
    """A component that is the same in all photos of a group is not divided by 0."""
    embeddings = np.ones((30, 3))
    assert np.isfinite(align(embeddings, ["a"] * 30, moments_by_group(embeddings, ["a"] * 30))).all()


def test_a_folded_head_answers_unaligned_embeddings() -> None:
    """The folded head gives for embeddings the logits that the head gives for standardised ones."""
    draw = np.random.default_rng(3)
    embeddings = draw.normal(5, 3, (40, 6))
    head, moments = Head(draw.normal(size=(6, 3)), draw.normal(size=3)), measure_moments(embeddings)
    expected = head.logits(moments.standardise(embeddings))
    assert fold(head, moments).logits(embeddings) == pytest.approx(expected, abs=1e-4)
