"""Whether a new model may replace the champion: plain functions from both models' answers to a verdict.

The answers are compared photo by photo on the gold set and on the fresh audit slice, with the champion and
with the best champion so far. The second comparison is what stops a slow descent: losses that are each too
small to see against the last champion add up against the best one. So on one gold set no sequence of
promotions ends more than `Limits.tolerance` below the best accuracy that was ever promoted.
"""

from collections.abc import Callable, Sequence
from math import comb
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from cloud.evaluate import calibration_error
from cloud.head import Floats, Ints

Verdict: TypeAlias = Literal["promote", "keep", "inconclusive"]
Slice: TypeAlias = Literal["gold", "audit"]

RESAMPLES = 2000
_SIGNIFICANT = 0.05
_PERCENT = (2.5, 97.5)


class Limits(msgspec.Struct, frozen=True):
    """What a new model is allowed to lose.

    Attributes:
        tolerance: accuracy on gold; a loss of more must be excluded at 95 % to promote.
        recall_loss: recall of any class, as measured.
        recall_doubt: recall of any class, as its interval allows: more than that is too few photos to tell.
        calibration_loss: expected calibration error.
        latency_ratio: time of an answer, as a multiple of the champion's.
    """

    tolerance: float = 0.01
    recall_loss: float = 0.02
    recall_doubt: float = 0.10
    calibration_loss: float = 0.01
    latency_ratio: float = 1.1


class Difference(msgspec.Struct, frozen=True):
    """A figure of two models on the same photos, and the 95 % interval of the second less the first.

    Attributes:
        champion: the older model's.
        challenger: the new model's.
        low: lower end of the interval of the difference.
        high: upper end.
    """

    champion: float
    challenger: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """The new model's less the older one's."""
        return self.challenger - self.champion


class Comparison(msgspec.Struct, frozen=True):
    """Two models on the same photos.

    Attributes:
        on: which photos.
        against: version of the older model.
        photos: how many.
        gained: photos that only the new model answers rightly.
        lost: photos that only the older one answers rightly.
        p_value: McNemar's exact test of gained against lost, two-sided, not weighted.
        accuracy: of both, weighted.
        recall: of both, by class that has photos, weighted.
        calibration: expected calibration error of both.
    """

    on: Slice
    against: int
    photos: int
    gained: int
    lost: int
    p_value: float
    accuracy: Difference
    recall: dict[str, Difference]
    calibration: Difference


class Latency(msgspec.Struct, frozen=True):
    """Time of an answer as a multiple of the champion's, with its 95 % interval."""

    ratio: float
    low: float
    high: float


class Gate(msgspec.Struct, frozen=True):
    """The verdict on a model.

    Attributes:
        verdict: `promote` it, `keep` the champion, or `inconclusive`: the champion stays as well.
        reasons: why, in words; at least one.
        champion: version that it was compared with, None if there was none.
        best: version that later models are compared with too: the most accurate on gold so far.
        comparisons: what was measured.
        latency: None if there was no champion.
        limits: what was allowed.
    """

    verdict: Verdict
    reasons: list[str]
    champion: int | None
    best: int
    comparisons: list[Comparison] = []
    latency: Latency | None = None
    limits: Limits = Limits()


def mcnemar(gained: int, lost: int) -> float:
    """Probability of a split at least as uneven if both models were equally good.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions (1947), in
    its exact form: a two-sided binomial test of the photos on which the models differ.
    """
    count = gained + lost
    tail = sum(comb(count, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**count))


def bootstrap_interval(
    count: int, statistic: Callable[[Ints], float], seed: int, resamples: int
) -> tuple[float, float]:
    """Bound a statistic of `count` photos at 95 % by drawing as many of them again and again.

    Args:
        count: photos.
        statistic: from positions, some of them several times, to the figure; NaN where it has none.
        seed: of the draws.
        resamples: how often.

    Source: Efron, Bootstrap methods: another look at the jackknife (1979), the percentile interval.
    """
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.nanpercentile(values, _PERCENT)
    return float(low), float(high)


def aligned(probabilities: Floats, own: Sequence[str], classes: Sequence[str]) -> Floats:
    """Put a model's `[N, K]` answers in another order of classes; what it does not know has probability 0."""
    columns = np.zeros((len(probabilities), len(classes)))
    for position, name in enumerate(own):
        columns[:, classes.index(name)] = probabilities[:, position]
    return columns


def compare(
    champion: Floats,
    challenger: Floats,
    truth: Ints,
    classes: Sequence[str],
    *,
    on: Slice,
    against: int,
    weights: Floats | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models on the same photos.

    The intervals of accuracy and recall are those of the photos and two more, one gained and one lost:
    otherwise ten photos without a difference would prove that there is none.

    Args:
        champion: `[N, K]` probabilities of the older model, N at least 1.
        challenger: `[N, K]`, of the new one.
        truth: `[N]`, in [0, K).
        classes: K names.
        on: which photos these are.
        against: version of the older model.
        weights: `[N]`, for audit photos one over the probability with which each was drawn.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Source: Agresti and Min, Simple improved confidence intervals for comparing matched proportions (2005),
    for the idea of adding pairs.
    """
    weights = np.ones(len(truth)) if weights is None else weights
    right = np.stack([champion.argmax(axis=1) == truth, challenger.argmax(axis=1) == truth])
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())

    def share(of: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Difference:
        return _share_difference(right[:, of], weights[of], seed, resamples)

    return Comparison(
        on=on,
        against=against,
        photos=len(truth),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        accuracy=share(truth >= 0),
        recall={name: share(truth == k) for k, name in enumerate(classes) if (truth == k).any()},
        calibration=_calibration_difference(champion, challenger, right, seed, resamples),
    )


def _share_difference(
    right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], weights: Floats, seed: int, resamples: int
) -> Difference:
    gains = np.append(right[1].astype(np.float64) - right[0], [1.0, -1.0])
    weighted = np.append(weights, [weights.mean()] * 2)
    low, high = bootstrap_interval(
        len(gains), lambda drawn: float(np.average(gains[drawn], weights=weighted[drawn])), seed, resamples
    )
    champion, challenger = (float(np.average(row, weights=weights)) for row in right)
    return Difference(champion, challenger, low, high)


def _calibration_difference(
    champion: Floats,
    challenger: Floats,
    right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    seed: int,
    resamples: int,
) -> Difference:
    sure = np.stack([champion.max(axis=1), challenger.max(axis=1)])

    def error(model: int, drawn: Ints) -> float:
        return calibration_error(sure[model, drawn], right[model, drawn])

    low, high = bootstrap_interval(
        sure.shape[1], lambda drawn: error(1, drawn) - error(0, drawn), seed, resamples
    )
    everything = np.arange(sure.shape[1])
    return Difference(error(0, everything), error(1, everything), low, high)


def judge(
    version: int,
    champion: int | None,
    best: int | None,
    comparisons: Sequence[Comparison],
    *,
    latency: Latency | None = None,
    limits: Limits | None = None,
) -> Gate:
    """Decide on a new model.

    Args:
        version: its number.
        champion: version that it would replace, None if there is none: then it is promoted.
        best: the most accurate version on gold so far, None if there is no champion.
        comparisons: on gold with the champion and, if it is another version, with the best; without them
            the verdict is inconclusive. On the audit slice where there is one.
        latency: against the champion.
        limits: what it is allowed to lose.
    """
    limits = limits or Limits()
    if champion is None:
        return Gate("promote", ["there is no champion to compare it with"], None, version, limits=limits)
    refusals = [reason for item in comparisons for reason in _refusals(item, limits)]
    if latency is not None and latency.low > limits.latency_ratio:
        refusals.append(f"an answer takes {latency.ratio:.2f} times as long as version {champion}'s")
    doubts = [reason for item in comparisons for reason in _doubts(item, limits)]
    seen = {item.against for item in comparisons if item.on == "gold"}
    doubts += [
        f"not compared with version {number} on gold"
        for number in sorted({champion, best or champion} - seen)
    ]
    verdict: Verdict = "keep" if refusals else "inconclusive" if doubts else "promote"
    promoted = verdict == "promote" and all(c.accuracy.gain >= 0 for c in comparisons if c.on == "gold")
    return Gate(
        verdict=verdict,
        reasons=refusals or doubts or [_praise(item) for item in comparisons],
        champion=champion,
        best=version if promoted else best or champion,
        comparisons=list(comparisons),
        latency=latency,
        limits=limits,
    )


def _refusals(item: Comparison, limits: Limits) -> list[str]:
    """Say what is worse for certain."""
    where = f"on {item.on} against version {item.against}"
    reasons = []
    by_count = item.on == "gold" and item.lost > item.gained and item.p_value < _SIGNIFICANT
    if by_count or item.accuracy.high < 0:
        reasons.append(
            f"accuracy {where}: {_change(item.accuracy)}, {item.lost} photos lost and {item.gained} gained"
            f" (p = {item.p_value:.2g})"
        )
    reasons += [
        f"recall of {name} {where}: {_change(recall)}"
        for name, recall in item.recall.items()
        if recall.gain < -limits.recall_loss and recall.high < 0
    ]
    calibration = item.calibration
    if item.on == "gold" and calibration.gain > limits.calibration_loss and calibration.low > 0:
        reasons.append(f"calibration error {where}: {_change(calibration)}")
    return reasons


def _doubts(item: Comparison, limits: Limits) -> list[str]:
    """Say what may be worse; the audit slice alone is small by design and raises no doubt."""
    if item.on != "gold":
        return []
    where = f"on gold against version {item.against}"
    reasons = []
    if min(item.accuracy.low, item.accuracy.gain) < -limits.tolerance:
        reasons.append(
            f"accuracy {where}: {_change(item.accuracy)}; {item.photos} photos do not exclude a loss of more"
            f" than {limits.tolerance:.1%}"
        )
    reasons += [
        f"recall of {name} {where}: {_change(recall)}; too few photos to tell"
        for name, recall in item.recall.items()
        if recall.gain < -limits.recall_loss or recall.low < -limits.recall_doubt
    ]
    return reasons


def _praise(item: Comparison) -> str:
    return f"accuracy on {item.on} against version {item.against}: {_change(item.accuracy)}"


def _change(figure: Difference) -> str:
    """Describe a difference, for example `97.0% → 98.0% (+1.0, 95 % interval -0.2 to +2.1 points)`."""
    return (
        f"{figure.champion:.1%} → {figure.challenger:.1%} ({100 * figure.gain:+.1f},"
        f" 95 % interval {100 * figure.low:+.1f} to {100 * figure.high:+.1f} points)"
    )
