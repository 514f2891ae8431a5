"""Promotion gate: decide whether a new version (the challenger) replaces the champion. No I/O.

A challenger is promoted only if it is shown to be no worse on the gold photos; or if gold photos and the new
labels of cameras' photos, two independent witnesses, speak for it together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from cloud.evaluation.metrics import calibration_error, overconfidence, p_words, points
from cloud.evaluation.paired_comparison import (
    Comparison,
    PairedPredictions,
    bootstrap_interval,
    compare,
    gain_chance,
    join,
    lowest_gain,
    shown_better,
    shown_worse,
)
from cloud.evaluation.recall_losses import SIGNIFICANCE, find_recall_losses
from cloud.modeling.arrays import Bools, Floats
from schemas.groups.membership import NO_GROUP

GateDecision: TypeAlias = Literal["promote", "keep", "inconclusive"]

MORE_GOLD = "import some with 'gleaner cloud import DIR --hold-out 20%'"
LOST_CLASS = (
    "label more of them with 'gleaner cloud review'; to drop the class, use 'gleaner cloud merge-class' or"
    " 'gleaner cloud forget --class', train with --classes without it, or release with --force"
)


GOLD_CHANCE = 0.25
"""Probability that gold photos exclude a loss by chance, where they are one of two witnesses."""
NEW_LABELS_CHANCE = 0.2
"""Probability that new labels show a gain by chance, as the other witness: both, in one of 20 cases."""


class GateLimits(msgspec.Struct, frozen=True):
    """Limits of the gate.

    Attributes:
        accuracy_loss: largest drop of the gold accuracy below that of the best champion so far, in [0, 1].
        recall_loss: largest drop of a class's recall.
        calibration_loss: largest growth of the expected calibration error.
        slowdown: largest growth of the latency, as a factor.
    """

    accuracy_loss: float = 0.02
    recall_loss: float = 0.02
    calibration_loss: float = 0.02
    slowdown: float = 1.1


class Verdict(msgspec.Struct, frozen=True):
    """Decision of the gate with its reasons.

    Attributes:
        decision: `promote`, `keep` (the champion) or `inconclusive` (too few photos; the champion stays).
        champion: version of the champion.
        reasons: sentences, only those that led to the decision.
        gold: comparison on the gold set, None without one.
        audit: comparison on the audit slice, None without one.
        latency_ratio: challenger's to champion's, None if not measured.
        held_out: comparison on held-out labels and audits, None without any.
        groups: comparison on the photos of each group of devices, each version with its heads.
    """

    decision: GateDecision
    champion: int
    reasons: list[str]
    gold: Comparison | None
    audit: Comparison | None
    latency_ratio: float | None
    held_out: Comparison | None = None
    groups: dict[str, Comparison] = {}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Input of the gate.

    Attributes:
        gold: predictions for the gold set, None without one.
        best_gold_accuracy: the highest accuracy of any champion so far on these gold photos; this champion's
            accuracy if that is the highest.
        classes: K names.
        audit: predictions for the audit slice, None without one.
        latency_ratio: challenger's to champion's, None if not measured.
        held_out: predictions for other photos with a person's label that neither version was trained on,
            None without any. With a gold set, of photos that cameras sent alone.
        lost: classes of the champion that the challenger lacks, though photos of the dataset have them.
        groups: group of the device of each gold photo, or, without a gold set, of each held-out one and then
            of each audited one; empty if no device is in a group.
    """

    gold: PairedPredictions | None
    best_gold_accuracy: float
    classes: Sequence[str]
    audit: PairedPredictions | None = None
    latency_ratio: float | None = None
    held_out: PairedPredictions | None = None
    lost: Sequence[str] = ()
    groups: Sequence[str] = ()


_Finding: TypeAlias = tuple[GateDecision, str]


def decide_promotion(
    evidence: Evidence, champion: int, limits: GateLimits | None = None, seed: int = 0
) -> Verdict:
    """Decide whether the challenger is promoted.

    The decision is `keep` if anything is shown to be worse, else `inconclusive` if it is not shown to be no
    worse, else `promote`. Over any number of promotions, the gold accuracy of the version in service is never
    more than `accuracy_loss` below that of the best champion before it.

    Args:
        evidence: predictions of both versions; each set that is not None has at least one photo.
        champion: version of the champion.
        limits: the gate's limits, the defaults if None.
        seed: of the bootstrap.
    """
    allowed = limits or GateLimits()
    new = join(evidence.held_out, evidence.audit)
    gold, audit, held_out = (
        None if pair is None else compare(pair, seed) for pair in (evidence.gold, evidence.audit, new)
    )
    together = (
        evidence.gold is not None and held_out is not None and _agree(evidence.gold, held_out, allowed, seed)
    )
    better = together or any(one is not None and shown_better(one) for one in (gold, held_out))
    findings: list[_Finding] = []
    if evidence.gold is not None and gold is not None:
        findings = [
            _accuracy("gold", gold, allowed, held_out if together else None),
            *_against_best(gold, evidence.best_gold_accuracy, allowed),
            *_recalls(evidence.gold, evidence.classes, allowed, better=better),
            *_calibration(evidence.gold, allowed, seed, better=better),
            # Audits alone have their own veto below.
            *([] if held_out is None or evidence.held_out is None else _on_new_photos(held_out)),
        ]
    elif new is not None and held_out is not None:
        findings = [
            _without_gold(_accuracy("held-out", held_out, allowed)),
            *map(_without_gold, _recalls(new, evidence.classes, allowed, better=better)),
            *map(_without_gold, _calibration(new, allowed, seed, better=better)),
        ]
    else:
        findings = [("inconclusive", f"no gold photos to judge on; {MORE_GOLD}")]
    judged = new if evidence.gold is None else evidence.gold
    groups = {} if judged is None else _by_group(judged, evidence.groups, seed)
    # The audit slice alone is small and only has a veto; beside gold it counts as new labels.
    findings += [
        *_grouped(groups),
        *_lost(evidence.lost),
        *([] if audit is None else _audited(audit)),
        *_latency(evidence.latency_ratio, allowed),
    ]
    order: tuple[GateDecision, ...] = ("keep", "inconclusive", "promote")
    decision = min((found for found, _ in findings), key=order.index)
    reasons = [reason for found, reason in findings if found == decision]
    return Verdict(decision, champion, reasons, gold, audit, evidence.latency_ratio, held_out, groups)


def _by_group(pair: PairedPredictions, groups: Sequence[str], seed: int) -> dict[str, Comparison]:
    """Compare two versions on the photos of each group; none for photos of no group."""
    of = np.array(groups)

    def part(group: str) -> PairedPredictions:
        at = of == group
        return PairedPredictions(pair.champion[at], pair.challenger[at], pair.truth[at], pair.weights[at])

    return {group: compare(part(group), seed) for group in sorted(set(groups) - {NO_GROUP})}


def _grouped(groups: Mapping[str, Comparison]) -> Iterator[_Finding]:
    # One of many groups is worse by chance: Bonferroni's correction.
    for name, one in groups.items():
        if one.challenger < one.champion and one.p_value < SIGNIFICANCE / len(groups):
            yield "keep", f"group {name}: accuracy {_change(one)} on {one.photos} photos: worse"


def _without_gold(finding: _Finding) -> _Finding:
    decision, reason = finding
    hint = "" if decision == "promote" or MORE_GOLD in reason else f"; {MORE_GOLD}"
    return decision, f"no gold photos, judged on held-out labels and audits: {reason}{hint}"


def _accuracy(of: str, gold: Comparison, limits: GateLimits, new: Comparison | None = None) -> _Finding:
    change = f"{of} accuracy {_change(gold)} on {gold.photos} photos"
    if shown_worse(gold):
        return "keep", f"{change}: worse ({p_words(gold.p_value)})"
    # On few photos too: the test has shown that chance is an unlikely cause of the gains.
    if shown_better(gold):
        return "promote", f"{change}: better ({p_words(gold.p_value)})"
    if new is not None:
        return "promote", f"{change}: no loss shown; {_new_photos(new)}: better"
    return _no_worse(change, gold, limits)


def _no_worse(change: str, gold: Comparison, limits: GateLimits) -> _Finding:
    # If N photos show no loss, the true loss may still be up to 3 / N at 95 % confidence: Hanley and
    # Lippman-Hand, If nothing goes wrong, is everything all right? (1983).
    needed = int(np.ceil(3 / limits.accuracy_loss)) if limits.accuracy_loss else None
    if needed is None:
        return "inconclusive", f"{change}: no number of photos can exclude every loss"
    if gold.photos < needed:
        return "inconclusive", f"{change}: too few to tell, at least {needed} are needed; {MORE_GOLD}"
    if gold.low < -limits.accuracy_loss:
        return "inconclusive", f"{change}: a loss of {100 * limits.accuracy_loss:.1f} points is not excluded"
    return "promote", f"{change}: no worse"


def _against_best(gold: Comparison, best: float, limits: GateLimits) -> Iterator[_Finding]:
    # Compared with the best champion so far and not only with this one: many small losses must not add up.
    if gold.challenger < best - limits.accuracy_loss:
        lost = 100 * (best - gold.challenger)
        yield "keep", f"gold accuracy {lost:.1f} points below {best:.1%}, the best of a champion so far"


def _lost(classes: Sequence[str]) -> Iterator[_Finding]:
    # A training leaves out the gold photos of a class that it lacks, so that no figure shows the loss.
    for name in classes:
        yield "keep", f"class {name} is lost: photos have this label, but too few to train on; {LOST_CLASS}"


def _audited(audit: Comparison) -> Iterator[_Finding]:
    if shown_worse(audit):
        change = f"audit accuracy {_change(audit)} on {audit.photos} photos"
        yield "keep", f"{change}: worse ({p_words(audit.p_value)})"


def _agree(gold: PairedPredictions, new: Comparison, limits: GateLimits, seed: int) -> bool:
    """Return whether gold photos and new labels speak for the challenger together.

    A challenger that loses more than the limit on gold and gains nothing on new photos passes both by chance
    in about one of 20 cases at most, because the photos are different ones.
    """
    # Without a loss among N photos, chance has it with a probability of (1 - limit) ** N.
    if len(gold.truth) * limits.accuracy_loss < -np.log(GOLD_CHANCE) or gain_chance(new) > NEW_LABELS_CHANCE:
        return False
    before, after = gold.correct
    low = lowest_gain(after.astype(np.float64) - before, chance=GOLD_CHANCE, seed=seed)
    return low >= -limits.accuracy_loss


def _on_new_photos(new: Comparison) -> Iterator[_Finding]:
    if shown_worse(new):
        yield "keep", f"{_new_photos(new)}: worse ({p_words(new.p_value)})"


def _new_photos(new: Comparison) -> str:
    return f"accuracy on new labels of cameras' photos {_change(new)} on {new.photos} photos"


def _recalls(
    gold: PairedPredictions, classes: Sequence[str], limits: GateLimits, *, better: bool
) -> Iterator[_Finding]:
    return find_recall_losses(*gold.correct, gold.truth, classes, limit=limits.recall_loss, better=better)


def _calibration(
    gold: PairedPredictions, limits: GateLimits, seed: int, *, better: bool
) -> Iterator[_Finding]:
    # Only classes that the champion knows: on others it is confident and wrong, and an underconfident
    # champion would seem calibrated by that.
    known = gold.champion.max(axis=0)[gold.truth] > 0
    if not known.any():
        return
    correct = [mask[known] for mask in gold.correct]
    confidence = [scores[known].max(axis=1) for scores in (gold.champion, gold.challenger)]
    samples = confidence[0], correct[0], confidence[1], correct[1]

    def growth(before: Floats, correct_before: Bools, after: Floats, correct_after: Bools) -> float:
        return calibration_error(after, correct_after) - calibration_error(before, correct_before)

    grown = growth(*samples)
    if grown <= limits.calibration_loss:
        return
    change = f"calibration error {points(grown)} points"
    surplus = [overconfidence(*some) for some in zip(confidence, correct, strict=True)]
    if better and surplus[1] <= surplus[0] + limits.calibration_loss:
        # Labels are chosen where the model errs, so that those held out for the temperature are the harder
        # photos: a version that is better has most often become more careful than it needs to be.
        yield "promote", f"{change}: more careful than before, and better"
        return
    low, _ = bootstrap_interval(growth, *samples, seed=seed, vectorized=False)
    yield ("keep", f"{change}: worse") if low > 0 else ("inconclusive", f"{change}: not significant")


def _latency(ratio: float | None, limits: GateLimits) -> Iterator[_Finding]:
    if ratio is not None and ratio > limits.slowdown:
        yield "keep", f"latency {ratio:.2f} times the champion's, at most {limits.slowdown:g} is allowed"


def _change(comparison: Comparison) -> str:
    return (
        f"{comparison.champion:.1%} → {comparison.challenger:.1%} "
        f"(95 % interval of the gain {points(comparison.low)} to {points(comparison.high)} points)"
    )
