"""The gate: whether a new model, the challenger, takes the champion's place. Plain functions, no I/O.

Both answer the same photos, so they are compared photo by photo: what both get right or both get wrong says
nothing of their difference. What is not shown to be no worse is not promoted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.metrics import calibration_error
from cloud.modeling.arrays import Floats, Ints

Decision: TypeAlias = Literal["promote", "keep", "inconclusive"]
Mask: TypeAlias = NDArray[np.bool_]

RESAMPLES = 2000
SIGNIFICANCE = 0.05


class Rules(msgspec.Struct, frozen=True):
    """What the gate allows.

    Attributes:
        accuracy_loss: most that the gold accuracy may fall below the best champion's so far, in [0, 1].
        recall_loss: most that a class may lose of its recall.
        calibration_loss: most that the expected calibration error may grow.
        slowdown: most that the latency may grow, as a factor.
    """

    accuracy_loss: float = 0.02
    recall_loss: float = 0.02
    calibration_loss: float = 0.02
    slowdown: float = 1.1


@dataclass(frozen=True, slots=True)
class Answers:
    """What champion and challenger say of the same photos.

    Attributes:
        champion: probabilities `[N, K]`.
        challenger: probabilities `[N, K]`.
        truth: `[N]`, in [0, K).
        weights: `[N]`, how many photos each stands for: 1, or 1 / inclusion probability.
    """

    champion: Floats
    challenger: Floats
    truth: Ints
    weights: Floats

    @property
    def right(self) -> tuple[Mask, Mask]:
        """Which photos the champion and the challenger get right, each `[N]`."""
        return self.champion.argmax(axis=1) == self.truth, self.challenger.argmax(axis=1) == self.truth


class Comparison(msgspec.Struct, frozen=True):
    """Champion and challenger on the same photos.

    Attributes:
        photos: how many.
        champion: the champion's accuracy, weighted.
        challenger: the challenger's.
        only_champion: photos that the champion alone gets right.
        only_challenger: photos that the challenger alone gets right.
        p_value: of McNemar's exact test, two-sided.
        low: lower end of the 95 % bootstrap interval of the gain in accuracy.
        high: its upper end.
    """

    photos: int
    champion: float
    challenger: float
    only_champion: int
    only_challenger: int
    p_value: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """By how much the challenger's accuracy is higher."""
        return self.challenger - self.champion


class Verdict(msgspec.Struct, frozen=True):
    """What the gate decides, and why.

    Attributes:
        decision: `promote`, `keep` (the champion) or `inconclusive` (the champion stays, for want of photos).
        champion: version of the champion.
        reasons: in words; those that decide.
        gold: comparison on the gold set, None without one.
        audit: comparison on the audit slice, None without one.
        latency_ratio: challenger's to champion's, None if not measured.
    """

    decision: Decision
    champion: int
    reasons: list[str]
    gold: Comparison | None
    audit: Comparison | None
    latency_ratio: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a verdict is made of.

    Attributes:
        gold: answers to the gold set, None without one.
        best_gold_accuracy: the highest gold accuracy of any champion so far, on the same photos; the
            champion's own if it is the best.
        audit: answers to the fresh audit slice, None without one.
        latency_ratio: challenger's to champion's, None if not measured.
        classes: K names.
    """

    gold: Answers | None
    best_gold_accuracy: float
    classes: Sequence[str]
    audit: Answers | None = None
    latency_ratio: float | None = None


_Finding: TypeAlias = tuple[Decision, str]


def judge(evidence: Evidence, champion: int, rules: Rules | None = None, seed: int = 0) -> Verdict:
    """Decide whether the challenger is promoted.

    `keep` if it is shown to be worse in anything, else `inconclusive` if it is not shown to be no worse,
    else `promote`. However many challengers come, the gold accuracy of the one in service is never more
    than `accuracy_loss` below that of the best before it.

    Args:
        evidence: answers of both, to at least one photo each where there are any.
        champion: version of the champion.
        rules: what is allowed.
        seed: of the resampling.
    """
    allowed = rules or Rules()
    gold, audit = (None if said is None else compare(said, seed) for said in (evidence.gold, evidence.audit))
    if evidence.gold is None or gold is None:
        found: list[_Finding] = [("inconclusive", "no gold photos to judge on")]
    else:
        found = [
            _accuracy(gold, allowed),
            *_against_best(gold, evidence.best_gold_accuracy, allowed),
            *_recalls(evidence.gold, evidence.classes, allowed),
            *_calibration(evidence.gold, allowed, seed),
        ]
    found += [*([] if audit is None else _audited(audit)), *_latency(evidence.latency_ratio, allowed)]
    order: tuple[Decision, ...] = ("keep", "inconclusive", "promote")
    decision = min((decision for decision, _ in found), key=order.index)
    reasons = [reason for said, reason in found if said == decision]
    return Verdict(decision, champion, reasons, gold, audit, evidence.latency_ratio)


def compare(answers: Answers, seed: int = 0) -> Comparison:
    """Compare two models on the same photos.

    Sources: McNemar, Note on the sampling error of the difference between correlated proportions (1947), in
    its exact form; Efron, Bootstrap methods (1979), percentile interval over resampled photos.
    """
    champion, challenger = answers.right
    weights = answers.weights / answers.weights.sum()
    gains = challenger.astype(np.float64) - champion

    def gain(chosen: Ints) -> float:
        return float(gains[chosen] @ answers.weights[chosen] / answers.weights[chosen].sum())

    low, high = _interval(gain, len(gains), seed)
    only_champion, only_challenger = int((champion & ~challenger).sum()), int((challenger & ~champion).sum())
    return Comparison(
        photos=len(gains),
        champion=float(champion @ weights),
        challenger=float(challenger @ weights),
        only_champion=only_champion,
        only_challenger=only_challenger,
        p_value=mcnemar(only_champion, only_challenger),
        low=low,
        high=high,
    )


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test for two counts of disagreement."""
    count, fewer = only_one + only_other, min(only_one, only_other)
    tail = sum(comb(count, number) for number in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << count))


def _interval(statistic: Callable[[Ints], float], count: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic of resampled positions."""
    generator = np.random.default_rng(seed)
    drawn = [statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)


def _accuracy(gold: Comparison, rules: Rules) -> _Finding:
    said = f"gold accuracy {_change(gold)} on {gold.photos} photos"
    if _shown_worse(gold):
        return "keep", f"{said}: worse (p = {gold.p_value:.3f})"
    # Without a single loss seen in N photos the true one may still be 3 / N: Hanley and Lippman-Hand,
    # If nothing goes wrong, is everything all right? (1983).
    needed = int(np.ceil(3 / rules.accuracy_loss)) if rules.accuracy_loss else None
    if needed is None or gold.photos < needed:
        return "inconclusive", f"{said}: too few to tell, at least {needed or 'endlessly many'} are needed"
    if gold.low < -rules.accuracy_loss:
        return "inconclusive", f"{said}: a loss of {100 * rules.accuracy_loss:.1f} points is not excluded"
    return "promote", f"{said}: no worse"


def _against_best(gold: Comparison, best: float, rules: Rules) -> Iterator[_Finding]:
    """Hold against the best so far: many small losses must not add up."""
    if gold.challenger < best - rules.accuracy_loss:
        lost = 100 * (best - gold.challenger)
        yield "keep", f"gold accuracy {lost:.1f} points below {best:.1%}, the best of a champion so far"


def _audited(audit: Comparison) -> Iterator[_Finding]:
    if _shown_worse(audit):
        yield (
            "keep",
            f"audit accuracy {_change(audit)} on {audit.photos} photos: worse (p = {audit.p_value:.3f})",
        )


def _recalls(gold: Answers, classes: Sequence[str], rules: Rules) -> Iterator[_Finding]:
    champion, challenger = gold.right
    for number, name in enumerate(classes):
        of_class = gold.truth == number
        if not of_class.any():
            continue
        lost = float(champion[of_class].mean() - challenger[of_class].mean())
        if lost <= rules.recall_loss + 1e-9:
            continue
        only_champion = int((champion & ~challenger & of_class).sum())
        only_challenger = int((challenger & ~champion & of_class).sum())
        said = f"recall of {name} {_points(-lost)} points on {int(of_class.sum())} photos"
        shown = mcnemar(only_champion, only_challenger) < SIGNIFICANCE
        yield ("keep", f"{said}: worse") if shown else ("inconclusive", f"{said}: perhaps by chance")


def _calibration(gold: Answers, rules: Rules, seed: int) -> Iterator[_Finding]:
    # Sure and wrong in a class that it does not know, a champion that is too modest would seem calibrated.
    known = gold.champion.max(axis=0)[gold.truth] > 0
    right = [correct[known] for correct in gold.right]
    confidence = gold.champion[known].max(axis=1), gold.challenger[known].max(axis=1)
    if not known.any():
        return

    def growth(chosen: Ints) -> float:
        before, after = (
            calibration_error(sure[chosen], correct[chosen])
            for sure, correct in zip(confidence, right, strict=True)
        )
        return float(after - before)

    grown = growth(np.arange(known.sum()))
    if grown <= rules.calibration_loss:
        return
    low, _ = _interval(growth, int(known.sum()), seed)
    said = f"calibration error {_points(grown)} points"
    yield ("keep", f"{said}: worse") if low > 0 else ("inconclusive", f"{said}: perhaps by chance")


def _latency(ratio: float | None, rules: Rules) -> Iterator[_Finding]:
    if ratio is not None and ratio > rules.slowdown:
        yield "keep", f"latency {ratio:.2f} times the champion's, at most {rules.slowdown:g} is allowed"


def _shown_worse(comparison: Comparison) -> bool:
    """Believe the interval only of enough disagreements for the test to show anything at all."""
    enough = mcnemar(0, comparison.only_champion + comparison.only_challenger) < SIGNIFICANCE
    tested = comparison.p_value < SIGNIFICANCE and comparison.only_champion > comparison.only_challenger
    return comparison.gain < 0 and (tested or (comparison.high < 0 and enough))


def _change(comparison: Comparison) -> str:
    return (
        f"{comparison.champion:.1%} → {comparison.challenger:.1%} "
        f"(95 % interval of the gain {_points(comparison.low)} to {_points(comparison.high)} points)"
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
