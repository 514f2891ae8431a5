"""Rules of cloud/evaluation/learning_curve.py: what further labels bring, and when that is unknown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.learning_curve import MIN_LABELS, learning_curve, power_law


def drawn(photos: int, seed: int, spread: float) -> tuple[np.ndarray, list[str]]:
    """Draw embeddings of two classes that overlap by `spread`."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(2, size=photos)
    vectors = generator.normal(0, spread, (photos, 24))
    vectors[:, 0] += 2 * truth - 1
    return vectors, ["dog" if one else "cat" for one in truth]


@given(st.floats(0.05, 2), st.floats(0, 1))
def test_a_power_law_is_found_again(scale, exponent):
    """From exact error rates; an error that grows with the labels counts as one that stays."""
    sizes = np.array([10.0, 20, 40, 80])
    found = power_law(sizes, scale * sizes**-exponent)
    assert found == pytest.approx((scale, exponent), rel=1e-6, abs=1e-6)
    assert power_law(sizes, sizes)[1] == 0


def test_the_gain_says_what_further_labels_really_bring():
    """Fitted on 60 labels, the interval holds the gain that 60 more bring on fresh photos, in most draws."""
    held = 0
    for seed in range(3):
        vectors, labels = drawn(60, seed, spread=0.7)
        curve = learning_curve(vectors, labels, ["pi-1"] * 60, seed=0, ahead=60)
        accuracies = []
        for photos in (60, 120):
            more, names = drawn(photos, seed, spread=0.7)
            fresh, truth = drawn(2000, 1000 + seed, spread=0.7)
            accuracies.append(_accuracy(more, names, fresh, truth))
        held += curve.gain.low - 0.02 <= accuracies[1] - accuracies[0] <= curve.gain.high + 0.02
        assert 0 <= curve.gain.low <= curve.gain.expected <= curve.gain.high
    assert held >= 2


def _accuracy(vectors, labels, fresh, truth) -> float:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # only this test

    return LogisticRegression(max_iter=500).fit(vectors, labels).score(fresh, truth)


def test_more_labels_narrow_the_interval_of_the_gain():
    """Few labels give a wide interval, which is not shown; many a narrow one."""
    few, many = (learning_curve(*drawn(n, 1, 0.7), ["pi-1"] * n, seed=0) for n in (30, 200))
    assert few.gain.high - few.gain.low > many.gain.high - many.gain.low
    assert (few.gain.is_narrow, many.gain.is_narrow) == (False, True)
    assert many.points[-1].accuracy > many.points[0].accuracy
    assert [point.labels for point in many.points][::4] == [10, 160]


def test_too_few_labels_give_no_curve():
    """Below the minimum, or with one class, or with a second class of a single photo."""
    vectors, labels = drawn(MIN_LABELS - 1, 1, 0.7)
    assert learning_curve(vectors, labels, labels, seed=0).points == ()
    vectors, labels = drawn(MIN_LABELS, 1, 0.7)
    assert learning_curve(vectors, ["cat"] * MIN_LABELS, labels, seed=0).gain is None
    curve = learning_curve(vectors, ["cat"] * (MIN_LABELS - 1) + ["dog"], labels, seed=0)
    assert (curve.labels, list(curve.rare), curve.gain) == (MIN_LABELS - 1, ["dog"], None)


def test_classes_and_devices_have_shares_of_their_own():
    """Of the photos held out; a camera whose photos have no relation to their labels is seen to be bad."""
    vectors, labels = drawn(150, 1, 0.3)
    groups = ["pi-1" if at % 3 else "pi-2" for at in range(150)]
    vectors[::3] = np.random.default_rng(5).normal(0, 1, (50, 24))
    curve = learning_curve(vectors, labels, groups, seed=0)
    assert {name: share.photos for name, share in curve.by_group.items()} == {"pi-1": 100, "pi-2": 50}
    assert curve.by_group["pi-2"].high < curve.by_group["pi-1"].low
    assert set(curve.by_class) == {"cat", "dog"}
    assert sum(share.photos for share in curve.by_class.values()) == 150
