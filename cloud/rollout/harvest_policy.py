"""Which rules the harvest is to follow next, by what training and audits say: plain functions, no I/O."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import structs

from cloud.evaluation.audit_set import Audited
from cloud.evaluation.metrics import wilson_interval
from cloud.modeling.arrays import Floats
from cloud.registry.model_card import Card
from schemas.messages import HarvestRules
from schemas.uncertainty import uncertainty

TARGET = 0.97
"""Share of the labels in the lane auto that are to be right."""
ENOUGH = 88
"""Audited photos of a class from which its threshold moves: so many without a mistake show `TARGET`."""

_STEPS = 200
_Z = 1.644854  # the normal distribution's 95 % quantile: each bound by itself holds at 95 % confidence


class _Judged(NamedTuple):
    confidence: float
    inclusion: float
    right: bool


class _Precision(NamedTuple):
    """Of the photos at or above a threshold, the share whose label is right, with its bounds."""

    threshold: float
    photos: int
    share: float
    low: float
    high: float


def revised(
    rules: HarvestRules,
    audited: Iterable[Audited] = (),
    *,
    helps: bool = True,
    helped: bool = True,
    target: float = TARGET,
) -> tuple[HarvestRules, list[str]]:
    """Return the rules to follow from now on; without evidence they stay as they are.

    Args:
        rules: In force.
        audited: Photos that the model in service answered.
        helps: Whether the lane auto helps the training, as the newest card says.
        helped: The same as the card said that was the newest when the rules were set. The lane is switched on
            only where this was False: otherwise a person switched it off.
        target: Share of the labels in the lane auto that are to be right, for each class.

    Returns:
        The rules, and for each change a reason in words.
    """
    auto, reasons = rules.auto, []
    if auto and not helps:
        auto = False
        reasons.append("lane auto off: it did not help the training in two rounds running")
    elif not auto and helps and not helped:
        auto = True
        reasons.append("lane auto on: it helps the training again")
    by_class = dict(rules.auto_by_class)
    for label, photos in sorted(_candidates(audited, rules).items()):
        if len(photos) < ENOUGH:
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


def helped_at(lineage: Sequence[Card], at_ms: int | None) -> bool:
    """Tell whether the lane auto helped, as was known at a time.

    Args:
        lineage: Cards of all versions, the oldest first.
        at_ms: UTC; None if unknown, when nothing was.
    """
    return next((card.auto for card in reversed(lineage) if card.created_at_ms <= (at_ms or 0)), True)


def _candidates(audited: Iterable[Audited], rules: HarvestRules) -> dict[str, list[_Judged]]:
    """Return by class the photos that some threshold would let into the lane auto (`edge/harvest/lanes.py`).

    What was drawn with an unknown probability is left out.
    """
    found: dict[str, list[_Judged]] = defaultdict(list)
    for photo in audited:
        if (
            photo.confidence is not None
            and photo.inclusion is not None
            and photo.inclusion > 0
            and _uncertainty(photo, photo.confidence) <= rules.uncertain_above
            and (photo.novelty is None or photo.novelty <= rules.hard_novelty)
        ):
            right = photo.edge_label == photo.human_label
            found[photo.edge_label].append(_Judged(photo.confidence, photo.inclusion, right))
    return found


def _uncertainty(photo: Audited, confidence: float) -> float:
    """Return the uncertainty as far as it is known: rows written by older edges lack margin and entropy."""
    margin = confidence if photo.margin is None else photo.margin
    return uncertainty(confidence, margin, 0.0 if photo.entropy is None else photo.entropy)


def _threshold(photos: Sequence[_Judged], before: float, target: float) -> tuple[float, _Precision]:
    """Return the least threshold at or above which the target is shown, and what shows it.

    Where none does, the threshold with the highest lower bound, if that is above the one before; and 1 where
    even there the target is shown to be missed. So a higher target never lowers a threshold. The bound is
    that of one threshold, not of all that were looked at.

    Args:
        photos: At least one.
        before: The threshold so far.
        target: Share that is to be right.
    """
    confidence, inclusion, right = np.array(photos, float).T
    floor = min(before, int(confidence.min() * _STEPS) / _STEPS)  # no photo is evidence for less
    steps = [floor, *(step / _STEPS for step in range(_STEPS) if step / _STEPS > floor)]
    found = [
        _precision(step, inclusion[above], right[above])
        for step in steps
        if (above := confidence >= step).any()
    ]
    shown = next((precision for precision in found if precision.low >= target), None)
    if shown is not None:
        return shown.threshold, shown
    best = max(found, key=lambda precision: precision.low)
    return (1.0 if best.high < target else max(before, best.threshold)), best


def _precision(threshold: float, inclusion: Floats, right: Floats) -> _Precision:
    """Estimate the precision at or above a threshold; each photo stands for as many as it was drawn from.

    Unequal weights count as fewer photos. Source: Kish, Survey Sampling (1965), effective sample size.

    Args:
        threshold: For the record.
        inclusion: `[n]`, with which each of the photos there was drawn.
        right: `[n]`, 1 where its label is right, else 0.
    """
    weights = inclusion.min() / inclusion
    share = float(weights @ right / weights.sum())
    effective = float(weights.sum() ** 2 / (weights @ weights))
    low, high = wilson_interval(share * effective, effective, _Z)
    return _Precision(threshold, len(weights), share, low, high)
