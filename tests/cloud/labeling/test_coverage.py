"""Rules of cloud/labeling/coverage.py: MaxHerding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.labeling.coverage import WIDTH, Coverage
from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.kernels import median_distance


def blobs(seed: int, sizes: tuple[int, ...], distance: float = 20.0) -> tuple[Floats, Ints]:
    """Draw clusters that are far apart; return the points and their cluster."""
    draw = np.random.default_rng(seed)
    centres = distance * np.eye(len(sizes), 8)
    clusters = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    return centres[clusters] + draw.normal(0, 1, (len(clusters), 8)), clusters


def herd(points: Floats, labelled: Floats, count: int) -> list[int]:
    coverage, chosen = Coverage(points, labelled, np.ones(len(points))), list[int]()
    for _ in range(count):
        chosen.append(int(coverage.gains().argmax()))
        coverage.add(chosen[-1])
    return chosen


@given(st.integers(0, 50), st.integers(0, 3))
def test_each_choice_maximises_the_mean_coverage(seed: int, labels: int) -> None:
    """Each photo chosen is the one that, by the definition, leaves the greatest mean coverage."""
    draw = np.random.default_rng(seed)
    points, labelled = draw.normal(size=(12, 3)), draw.normal(size=(labels, 3))
    width = WIDTH * median_distance(points)

    def mean_coverage(chosen: list[int]) -> float:
        near = [*labelled, *points[chosen]]
        return float(
            np.mean(
                [
                    max(np.exp(-((point - other) ** 2).sum() / (2 * width**2)) for other in near)
                    for point in points
                ]
            )
        )

    chosen = herd(points, labelled, 4)
    for number in range(4):
        best = max(mean_coverage([*chosen[:number], other]) for other in range(len(points)))
        assert mean_coverage(chosen[: number + 1]) == pytest.approx(best, abs=1e-5)


def test_every_cluster_gets_a_label_before_any_gets_two() -> None:
    """Clusters of very different sizes are all covered; one that has a label already is left for the last."""
    points, clusters = blobs(1, (60, 20, 10, 5))
    assert sorted(clusters[herd(points, points[:0], 4)]) == [0, 1, 2, 3]
    assert sorted(clusters[herd(points, points[:3], 3)]) == [1, 2, 3]


def test_a_photo_that_stands_for_many_comes_first() -> None:
    """Weights decide between clusters of equal size."""
    points, clusters = blobs(2, (10, 10))
    coverage = Coverage(points, points[:0], np.where(clusters == 1, 5.0, 1.0))
    assert clusters[coverage.gains().argmax()] == 1


def test_equal_photos_are_covered_by_one() -> None:
    """Where all photos are equal, one covers them and none has a gain any more."""
    coverage = Coverage(np.ones((5, 4)), np.zeros((0, 4)), np.ones(5))
    assert coverage.gains() == pytest.approx(1.0)
    coverage.add(2)
    assert coverage.gains() == pytest.approx(0.0)
