"""The gate between a new model and its champion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.gate import Comparison, Gate, Latency, Limits, aligned, compare, judge, mcnemar
from cloud.head import Floats

PHOTOS = 400
TRUTH = np.arange(PHOTOS) % 2
CLASSES = ("cat", "dog")


def answers(wrong: int | set[int], sure: float = 0.95, photos: int = PHOTOS) -> Floats:
    """Return probabilities that are wrong on the first so many photos, or on these."""
    missed = np.isin(np.arange(photos), list(range(wrong) if isinstance(wrong, int) else wrong))
    said = np.where(missed, 1 - TRUTH[:photos], TRUTH[:photos])
    return np.where(np.eye(2)[said] > 0, sure, 1 - sure)


def judged(old: Floats, new: Floats, latency: Latency | None = None) -> Gate:
    """Judge version 2 against version 1 on gold."""
    seen = compare(old, new, TRUTH[: len(old)], CLASSES, on="gold", against=1, resamples=400)
    return judge(2, 1, 1, [seen], latency=latency)


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    """The p-value of known splits; none at all says nothing."""
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * 11 / 1024)


def test_a_better_model_is_promoted() -> None:
    """A model that loses nothing and gains much is promoted, and is the best from then on."""
    gate = judged(answers(40), answers(20))
    assert (gate.verdict, gate.best) == ("promote", 2)
    assert gate.reasons == [f"accuracy on gold against version 1: {_between(gate.comparisons[0])}"]


def _between(seen: Comparison) -> str:
    low, high = 100 * seen.accuracy.low, 100 * seen.accuracy.high
    return f"90.0% → 95.0% (+5.0, 95 % interval {low:+.1f} to {high:+.1f} points)"


def test_swapped_labels_are_stopped() -> None:
    """A model with its classes swapped is refused, and the reasons name accuracy and both recalls."""
    gate = judged(answers(8), answers(PHOTOS - 8))
    assert gate.verdict == "keep"
    assert gate.best == 1
    assert [reason.split(" on ")[0] for reason in gate.reasons][:3] == [
        "accuracy",
        "recall of cat",
        "recall of dog",
    ]


def test_too_few_photos_are_inconclusive() -> None:
    """Ten photos that both answer rightly do not prove that nothing is lost; no gold set proves nothing."""
    assert judged(answers(0, photos=10), answers(0, photos=10)).verdict == "inconclusive"
    nothing = judge(2, 1, 1, [])
    assert (nothing.verdict, nothing.reasons) == ("inconclusive", ["not compared with version 1 on gold"])


def test_the_first_model_is_promoted() -> None:
    """Where nothing is served, there is nothing to lose."""
    assert judge(1, None, None, []).verdict == "promote"


def test_a_class_must_not_pay_for_another() -> None:
    """More accurate on the whole, and dogs worse by eight points: refused."""
    cats, dogs = set(range(0, 120, 2)), set(range(1, 33, 2))
    gate = judged(answers(cats), answers(dogs))
    assert gate.comparisons[0].accuracy.gain > 0.1
    assert gate.verdict == "keep"
    assert [reason[:13] for reason in gate.reasons] == ["recall of dog"]


def test_calibration_must_not_get_worse() -> None:
    """As accurate, and much too sure of itself: refused."""
    gate = judged(answers(40, 0.9), answers(40, 0.999))
    assert gate.verdict == "keep"
    assert gate.reasons[0].startswith("calibration error on gold")


def test_a_slow_model_is_refused_once_that_is_certain() -> None:
    """Twice the time is refused; an interval that reaches below the limit is not."""
    old, new = answers(40), answers(20)
    assert judged(old, new, Latency(2.0, 1.8, 2.2)).verdict == "keep"
    assert judged(old, new, Latency(1.2, 1.0, 1.4)).verdict == "promote"


def test_audit_photos_count_by_how_likely_they_were_drawn() -> None:
    """The photos that stand for most of the stream decide, even if they are few; a loss there refuses."""
    weights = np.where(np.arange(PHOTOS) < 40, 50.0, 1.0)
    seen = compare(
        answers(set(range(40, 100))),
        answers(40),
        TRUTH,
        CLASSES,
        on="audit",
        against=1,
        weights=weights,
        resamples=400,
    )
    assert (seen.gained, seen.lost) == (60, 40)
    assert seen.accuracy.high < 0
    gold = compare(answers(40), answers(20), TRUTH, CLASSES, on="gold", against=1, resamples=400)
    assert judge(2, 1, 1, [gold, seen]).verdict == "keep"


def test_a_class_that_the_champion_does_not_know_counts_as_missed() -> None:
    """Answers are put in the order of the new classes; the absent one has probability 0."""
    np.testing.assert_array_equal(
        aligned(np.array([[0.9, 0.1]]), ["b", "a"], ["a", "b", "c"]), [[0.1, 0.9, 0.0]]
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    """A verdict can be repeated."""
    assert judged(answers(40), answers(30)) == judged(answers(40), answers(30))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 14)), min_size=5, max_size=25),
)
def test_no_sequence_of_models_sinks_by_more_than_the_tolerance(
    seed: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever models come, the champion's accuracy on gold stays within the tolerance of the best's."""
    generator = np.random.default_rng(seed)
    models = {1: generator.random(1000) < 0.95}
    champion = best = 1
    truth = np.arange(1000) % 2
    for version, (gains, losses) in enumerate(steps, start=2):
        right = models[champion].copy()
        right[generator.choice(np.flatnonzero(~right), min(gains, (~right).sum()), replace=False)] = True
        right[generator.choice(np.flatnonzero(right), losses, replace=False)] = False
        models[version] = right
        seen = [
            compare(*_of(models[old], right, truth), CLASSES, on="gold", against=old, resamples=60)
            for old in sorted({champion, best})
        ]
        gate = judge(version, champion, best, seen)
        best = gate.best
        champion = version if gate.verdict == "promote" else champion
        highest = max(models[number].mean() for number in {1, champion, best})
        assert models[champion].mean() >= highest - Limits().tolerance - 1e-9
        assert models[best].mean() >= models[1].mean() - 1e-9


def _of(old: np.ndarray, new: np.ndarray, truth: np.ndarray) -> tuple[Floats, Floats, np.ndarray]:
    def said(right: np.ndarray) -> Floats:
        return np.where(np.eye(2)[np.where(right, truth, 1 - truth)] > 0, 0.95, 0.05)

    return said(old), said(new), truth


def test_small_losses_do_not_add_up() -> None:
    """One photo in a thousand lost per version: each is promoted against the last, until the best says no."""
    truth = np.arange(1000) % 2
    verdicts, champion = [], 0
    for lost in range(1, 15):
        new = np.arange(1000) >= lost
        seen = [
            compare(*_of(np.arange(1000) >= old, new, truth), CLASSES, on="gold", against=1 + old)
            for old in sorted({0, champion})
        ]
        verdicts.append(judge(1 + lost, 1 + champion, 1, seen).verdict)
        champion = lost if verdicts[-1] == "promote" else champion
    assert verdicts[0] == "promote"
    assert verdicts[-1] != "promote"
    assert champion <= 10
