"""Rules of cloud/evaluation/paired_comparison.py: tests and intervals of two versions on the same photos."""

import numpy as np
import pytest

from cloud.evaluation.paired_comparison import (
    PairedPredictions,
    compare,
    gain_chance,
    join,
    lowest_gain,
    mcnemar,
)


def pair(champion: list[int], challenger: list[int], weights: list[float] | None = None) -> PairedPredictions:
    """Return answers to photos of class 0, right where the list has a 1."""
    first, second = (
        np.where(np.array(right)[:, None], [0.9, 0.1], [0.1, 0.9]) for right in (champion, challenger)
    )
    truth = np.zeros(len(champion), int)
    return PairedPredictions(
        first, second, truth, np.ones(len(truth)) if weights is None else np.array(weights)
    )


def test_mcnemar_is_the_exact_binomial_test():
    """The p-values are those of a fair coin, tossed once per disagreement."""
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(500, 500) == 1.0


@pytest.mark.parametrize(
    ("lost", "gained", "chance"), [(0, 3, 1 / 8), (1, 4, 6 / 32), (2, 2, 1), (0, 0, 1), (3, 0, 1)]
)
def test_the_chance_of_a_gain_is_one_sided(lost, gained, chance):
    """The probability of as many gains of a fair coin; 1 without a gain."""
    champion, challenger = [1] * lost + [0] * gained + [1], [0] * lost + [1] * gained + [1]
    assert gain_chance(compare(pair(champion, challenger))) == pytest.approx(chance)


@pytest.mark.parametrize(("chance", "deviations"), [(0.25, -0.674), (0.025, -1.96)])
def test_the_lowest_gain_is_a_quantile_of_the_mean(chance, deviations):
    """As the normal distribution has it, where photos are many; a point where the versions agree."""
    gains = np.array([1.0] * 40 + [-1.0] * 30 + [0.0] * 330)
    assert lowest_gain(gains, chance=chance, seed=0) == pytest.approx(
        gains.mean() + deviations * gains.std() / 20, abs=0.003
    )
    assert lowest_gain(np.zeros(9), chance=chance, seed=0) == 0


def test_photos_count_by_their_sampling_weights():
    """A photo drawn with a tenth of the probability weighs ten times as much."""
    found = compare(pair([0, 1], [1, 0], [1.0, 10.0]))
    assert found.champion == pytest.approx(10 / 11)
    assert found.challenger == pytest.approx(1 / 11)
    assert (found.only_champion, found.only_challenger) == (1, 1)


@pytest.mark.parametrize("photos", [1, 2])
def test_an_interval_of_one_photo_is_a_point(photos: int) -> None:
    """Every resample of a single photo is that photo; two photos already have an interval."""
    found = compare(pair([1] * photos, [0] + [1] * (photos - 1)))
    assert (found.low, found.high) == ((-1, -1) if photos == 1 else (-1, 0))


def test_joined_photos_count_once_each():
    """Two sets become one, without their weights; classes that only one of them has get probability 0."""
    wider = PairedPredictions(
        np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]]), np.array([2]), np.array([7.0])
    )
    joined = join(pair([1], [0]), wider)
    assert joined is not None
    assert joined.champion.tolist() == [[0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]
    assert (joined.truth.tolist(), joined.weights.tolist()) == ([0, 2], [1.0, 1.0])
    assert join(None, None) is None
