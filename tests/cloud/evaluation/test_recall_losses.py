"""Rules of cloud/evaluation/recall_losses.py: which losses stop a promotion, of two classes and of many."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.paired_comparison import PairedPredictions, mcnemar
from cloud.evaluation.promotion_gate import Evidence, GateLimits, decide_promotion
from cloud.evaluation.recall_losses import find_recall_losses
from cloud.modeling.arrays import Bools, Floats, Ints

Rates = float | Sequence[float]


def answered(
    seed: int, sizes: Sequence[int], right: Rates, kept: Rates, mended: Rates
) -> tuple[Bools, Bools]:
    """Draw what champion and challenger get right, by class.

    Args:
        seed: Of the draw.
        sizes: Photos of each class.
        right: Share that the champion gets right.
        kept: Share of these that the challenger gets right too.
        mended: Share of the others that the challenger gets right.
    """
    draw = np.random.default_rng(seed)
    rates = (np.repeat(np.broadcast_to(rate, len(sizes)), sizes) for rate in (right, kept, mended))
    of_champion, of_kept, of_mended = (draw.random(sum(sizes)) < rate for rate in rates)
    return of_champion, np.where(of_champion, of_kept, of_mended)


def decision(champion: Bools, challenger: Bools, sizes: Sequence[int], best: float | None = None) -> str:
    """Return the decision of the gate about answers with calibrated confidences."""
    truth = np.repeat(np.arange(len(sizes)), sizes)

    def probabilities(right: Bools) -> Floats:
        answers = np.where(right, truth, (truth + 1) % len(sizes))
        rows = np.full((len(truth), len(sizes)), (1 - right.mean()) / (len(sizes) - 1))
        rows[np.arange(len(truth)), answers] = right.mean()
        return rows

    pair = PairedPredictions(probabilities(champion), probabilities(challenger), truth, np.ones(len(truth)))
    before = float(champion.mean()) if best is None else best
    return decide_promotion(
        Evidence(pair, before, [f"c{number}" for number in range(len(sizes))]), 1
    ).decision


def losses(
    champion: Bools, challenger: Bools, sizes: Sequence[int], *, better: bool
) -> list[tuple[str, str]]:
    truth: Ints = np.repeat(np.arange(len(sizes)), sizes)
    names = [f"c{number}" for number in range(len(sizes))]
    return list(find_recall_losses(champion, challenger, truth, names, limit=0.02, better=better))


@pytest.mark.parametrize(
    ("sizes", "rates"), [([10] * 37, (0.8, 0.97, 0.62)), ([40] * 10, (0.6, 0.95, 0.575))]
)
def test_a_better_version_of_many_classes_is_promoted(
    sizes: list[int], rates: tuple[float, float, float]
) -> None:
    """Some class of many loses a photo by chance: with ten points more over all photos that stops nothing."""
    assert {decision(*answered(seed, sizes, *rates), sizes) for seed in range(6)} == {"promote"}


def test_a_worse_version_of_many_classes_is_not_promoted() -> None:
    """Three points less over all photos: no version of any seed is promoted."""
    sizes = [10] * 37
    decisions = {decision(*answered(seed, sizes, 0.8, 0.93, 0.13), sizes) for seed in range(12)}
    assert decisions <= {"keep", "inconclusive"}


def test_a_class_that_fails_is_found_among_many() -> None:
    """Twenty points better in total, but one class of forty photos fails: the champion always stays."""
    sizes, fails = [40] * 10, [0.0] + [0.95] * 9
    for seed in range(40):
        found = losses(*answered(seed, sizes, 0.6, fails, [0.0] + [0.575] * 9), sizes, better=True)
        assert [(what, words.partition(" points")[0][:12]) for what, words in found][:1] == [
            ("keep", "recall of c0")
        ]


def test_a_class_of_few_photos_that_fails_is_not_promoted() -> None:
    """Ten photos among 37 classes: none is right any more, which is at least inconclusive."""
    champion, challenger = np.ones(370, bool), np.ones(370, bool)
    champion[[*range(3), *range(50, 100)]] = False
    challenger[:10] = False
    found = losses(champion, challenger, [10] * 37, better=True)
    assert found == [("inconclusive", "recall of c0 -70.0 points on 10 photos: none is right any more")]


def test_rare_classes_are_tested_together() -> None:
    """Twenty classes of four photos, too few for a test of each: their loss is found in their sum."""
    sizes, kept = [200] * 2 + [4] * 20, [0.98] * 2 + [0.5] * 20
    for seed in range(20):
        found = losses(*answered(seed, sizes, 0.8, kept, [0.75] * 2 + [0.0] * 20), sizes, better=True)
        assert found[0][0] == "keep"
        assert found[0][1].startswith("recall of 20 classes with few photos -")


def test_without_a_gain_every_loss_counts() -> None:
    """A version that is not better has to exclude a loss in each class with photos enough."""
    champion, challenger = np.ones(400, bool), np.ones(400, bool)
    challenger[:4] = False
    assert losses(champion, challenger, [100] * 4, better=False) == [
        ("inconclusive", "recall of c0 -4.0 points on 100 photos: not significant")
    ]
    assert losses(champion, challenger, [100] * 4, better=True) == [
        (
            "promote",
            "recall of c0 -4.0 points on 100 photos: the largest loss, not significant among 4 classes",
        )
    ]


@given(counts=st.tuples(*[st.integers(0, 30)] * 4), more=st.integers(1, 100), better=st.booleans())
@settings(deadline=None, max_examples=60)
def test_two_classes_are_judged_one_by_one(
    counts: tuple[int, int, int, int], more: int, *, better: bool
) -> None:
    """A loss of one of two classes keeps the champion if McNemar's test shows it, else it is inconclusive."""
    lost, gained, *other = counts
    size = lost + gained + sum(other) + more
    champion, challenger = np.ones(2 * size, bool), np.ones(2 * size, bool)
    challenger[:lost] = champion[lost : lost + gained] = False
    challenger[size : size + other[0]] = champion[size + other[0] : size + sum(other)] = False
    expected = [
        "keep" if mcnemar(*pair) < 0.05 else "inconclusive"
        for pair in ((lost, gained), tuple(other))
        if (pair[0] - pair[1]) / size > 0.02 + 1e-9
    ]
    found = [what for what, _ in losses(champion, challenger, [size, size], better=better)]
    # If both classes lose, one significant loss is enough; the second then has a weaker limit.
    assert found == expected or (len(expected) == 2 and "keep" in found and "keep" in expected)


def test_accuracy_of_many_classes_never_drifts_down_over_promotions() -> None:
    """Over any promotions, the version in service is never further below the best one than the limit."""
    sizes, limit, promoted = [12] * 20, GateLimits().accuracy_loss, 0
    draw = np.random.default_rng(0)
    champion = draw.random(sum(sizes)) < 0.7
    best = float(champion.mean())
    for _ in range(25):
        kept, mended = draw.uniform(0.85, 1.0), draw.uniform(0.0, 0.5)
        challenger = np.where(
            champion, draw.random(len(champion)) < kept, draw.random(len(champion)) < mended
        )
        if decision(champion, challenger, sizes, best) == "promote":
            champion, promoted = challenger, promoted + 1
            best = max(best, float(champion.mean()))
        assert champion.mean() >= best - limit - 1e-9
    assert promoted, "with no promotion nothing could drift"
