"""Tune a node's harvest rules from training results and audits. Plain functions, no I/O."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import structs

from cloud.evaluation.audit_set import AuditedPhoto
from cloud.evaluation.audit_stats import MIN_INCLUSION
from cloud.evaluation.metrics import wilson_interval
from cloud.modeling.arrays import Floats, effective_sample_size
from cloud.registry.model_card import Card
from schemas.policy_rules import HarvestRules
from schemas.uncertainty import uncertainty

TARGET_PRECISION = 0.97
"""Wanted share of correct labels in the lane auto."""
MIN_AUDITED = 88
"""Audited photos of a class that its threshold needs: without a mistake they show the target precision."""

_STEPS = 200
_Z = 1.644854  # 95 % quantile of the normal distribution: each single bound holds at 95 % confidence


class _Scored(NamedTuple):
    confidence: float
    inclusion: float
    correct: bool


class _Precision(NamedTuple):
    """Precision of the photos at or above a threshold, with its bounds."""

    threshold: float
    photos: int
    share: float
    low: float
    high: float


def tune_rules(
    rules: HarvestRules,
    audited: Iterable[AuditedPhoto] = (),
    *,
    auto_helps: bool = True,
    auto_helped_before: bool = True,
    target: float = TARGET_PRECISION,
) -> tuple[HarvestRules, list[str]]:
    """Return the harvest rules to use from now on; without evidence they stay unchanged.

    Args:
        rules: The current rules.
        audited: Audited photos that the model in service answered.
        auto_helps: Whether the lane auto improves the training, by the newest model card.
        auto_helped_before: The same by the card that was the newest when the rules were set.
        target: Wanted precision of the lane auto, for each class.

    Returns:
        The rules, and a reason for each change.
    """
    auto, reasons = rules.auto, []
    if auto and not auto_helps:
        auto = False
        reasons.append("lane auto off: it did not help the training in two rounds running")
    elif not auto and auto_helps and not auto_helped_before:
        # If the card was in favour of the lane when it was switched off, an operator did that, for a reason
        # that is not known here.
        auto = True
        reasons.append("lane auto on: it helps the training again")
    by_class = dict(rules.auto_by_class)
    for label, photos in sorted(_candidates(audited, rules).items()):
        if len(photos) < MIN_AUDITED:
            continue
        before = by_class.get(label, rules.auto_confidence)
        after, found = _threshold(photos, before, target)
        if after != before:
            by_class[label] = after
            reasons.append(
                f"auto_confidence of {label} {before:g} → {after:g}: of {found.photos} audited photos from"
                f" {found.threshold:g} on {found.share:.1%} are right ({found.low:.1%} to {found.high:.1%}),"
                f" wanted {target:.1%}"
            )
    return structs.replace(rules, auto=auto, auto_by_class=by_class), reasons


def raise_audit_share(rules: HarvestRules, share: float) -> tuple[HarvestRules, list[str]]:
    """Return the rules during a drift alarm: more audits, whose labels measure what the drift costs.

    Args:
        rules: The current rules.
        share: Wanted audit share; never lowered to it.

    Returns:
        The rules, and a reason for the change, if any.
    """
    if share <= rules.audit_share:
        return rules, []
    usual = rules.audit_share if rules.usual_audit_share is None else rules.usual_audit_share
    reason = f"audit_share {rules.audit_share:g} → {share:g}: drift alarm"
    return structs.replace(rules, audit_share=share, usual_audit_share=usual), [reason]


def restore_audit_share(rules: HarvestRules) -> tuple[HarvestRules, list[str]]:
    """Return the rules after the round that followed a drift alarm, and a reason for the change, if any."""
    usual = rules.usual_audit_share
    if usual is None:
        return rules, []
    reason = f"audit_share {rules.audit_share:g} → {usual:g}: a round followed the drift alarm"
    return structs.replace(rules, audit_share=usual, usual_audit_share=None), [reason]


def auto_helped_at(lineage: Sequence[Card], at_ms: int | None) -> bool:
    """Return whether the lane auto improved the training, by the card that was the newest at a time.

    Args:
        lineage: Cards of all versions, the oldest first.
        at_ms: UTC; None if unknown.

    Returns:
        True too if there was no card at that time, or the time is unknown.
    """
    return next((card.auto for card in reversed(lineage) if card.created_at_ms <= (at_ms or 0)), True)


def _candidates(audited: Iterable[AuditedPhoto], rules: HarvestRules) -> dict[str, list[_Scored]]:
    """Return by class the photos that some threshold would admit to the lane auto (`edge/harvest/lanes.py`).

    Photos of unknown inclusion probability are left out: they have no weight.
    """
    found: dict[str, list[_Scored]] = defaultdict(list)
    for photo in audited:
        if (
            photo.confidence is not None
            and photo.inclusion is not None
            and photo.inclusion > 0
            and _uncertainty(photo, photo.confidence) <= rules.uncertain_above
            and (photo.novelty is None or photo.novelty <= rules.hard_novelty)
        ):
            correct = photo.edge_label == photo.human_label
            found[photo.edge_label].append(_Scored(photo.confidence, photo.inclusion, correct))
    return found


def _uncertainty(photo: AuditedPhoto, confidence: float) -> float:
    """Return the uncertainty as far as it is known: rows written by older edges lack margin and entropy."""
    margin = confidence if photo.margin is None else photo.margin
    return uncertainty(confidence, margin, 0.0 if photo.entropy is None else photo.entropy)


def _threshold(photos: Sequence[_Scored], before: float, target: float) -> tuple[float, _Precision]:
    """Return the lowest threshold that is shown to reach the target precision, and its precision.

    If none is, the result is the threshold with the highest lower bound, if that is above the current one; or
    1 if even that one is shown to miss the target.

    Args:
        photos: At least one.
        before: The current threshold.
        target: Wanted precision.
    """
    confidence, inclusion, correct = np.array(photos, float).T
    floor = min(before, int(confidence.min() * _STEPS) / _STEPS)  # no photo is evidence for less
    steps = [floor, *(step / _STEPS for step in range(_STEPS) if step / _STEPS > floor)]
    found = [
        _precision(step, inclusion[above], correct[above])
        for step in steps
        if (above := confidence >= step).any()
    ]
    # The bound is that of one threshold; it is not corrected for the number of thresholds tried.
    shown = next((precision for precision in found if precision.low >= target), None)
    if shown is not None:
        return shown.threshold, shown
    best = max(found, key=lambda precision: precision.low)
    # Never below the current one: a higher target must not lower a threshold.
    return (1.0 if best.high < target else max(before, best.threshold)), best


def _precision(threshold: float, inclusion: Floats, correct: Floats) -> _Precision:
    """Estimate the precision at or above a threshold.

    Args:
        threshold: The threshold, for the result.
        inclusion: `[n]`, inclusion probabilities of the photos there.
        correct: `[n]`, 1 if the label is correct, else 0.
    """
    believed = inclusion.clip(MIN_INCLUSION)
    weights = believed.min() / believed  # at most 1
    share = float(weights @ correct / weights.sum())
    effective = effective_sample_size(weights)
    low, high = wilson_interval(share * effective, effective, _Z)
    return _Precision(threshold, len(weights), share, low, high)
