"""Drift signals: what changed since the last training, read from the dataset and the model cards.

Nothing else is remembered, so that a restarted trainer decides as the one before it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from bus.mqtt.presence import now_ms
from cloud.dataset.rows.typed_rows import typed_rows
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from cloud.evaluation.audit_set import audited_answers
from cloud.evaluation.audit_stats import AuditStats
from cloud.evaluation.unseen import readable_version
from cloud.registry.model_card import Card
from cloud.registry.registry import newest_promoted
from cloud.retraining.triggers import DriftAlarm, Scores, Signals, Triggers
from schemas.lanes import AUDIT

_SAMPLES = f"{HAS_IMAGE} AND origin = 'sample'"
_LABELLED = f"{HAS_IMAGE} AND {HAS_HUMAN_CLASS} AND split != 'gold'"


def drift_signals(store: Store, cards: Sequence[Card], triggers: Triggers) -> Signals:
    """Compare the dataset with the state that the last training saw.

    Args:
        store: The dataset.
        cards: Cards of all versions, oldest first.
        triggers: Has the number of samples to compare.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    # New is what the last training did not see, promoted or not; confidences are those of the served version.
    last, serving = cards[-1] if cards else None, newest_promoted(cards)
    trained_at = trained_dataset_version(store, last)
    labels = _labels(store)
    new_labels, new_samples = _new(store, labels, last, trained_at)
    signals = Signals(
        labels=len(new_labels),
        samples=new_samples,
        classes=len({label for _, label in labels}),
        last_round_s=None if last is None else (now_ms() - last.created_at_ms) / 1000,
    )
    if serving is None:
        return signals
    compared, reference, recent = _drift(store, serving.version, trained_at, triggers.drift_samples)
    return replace(
        signals,
        reference=reference,
        recent=recent,
        compared=compared,
        audit=_audit(store, serving.version, new_labels),
        accuracy_low=None if serving.metrics is None else serving.metrics.accuracy_low,
    )


def _new(
    store: Store, labels: set[tuple[str, str]], last: Card | None, trained_at: int | None
) -> tuple[set[tuple[str, str]], int]:
    """Return the labels that the last training did not see, and how many samples."""
    # As sets of (photo, label), so that a label that was corrected since counts as new.
    if trained_at is not None:
        return labels - _labels(store, trained_at), store.count(_SAMPLES) - store.count(_SAMPLES, trained_at)
    if last is None or last.dataset_version is None:  # trained from elsewhere
        return labels, store.count(_SAMPLES)
    # Its version is gone, by a forgetting perhaps: what remains are times, by two clocks.
    came = f"received_at_ms > {last.created_at_ms}"
    given = f"coalesce(human_at_ms, 0) > {last.created_at_ms}"
    return _labels(store, where=f"({came} OR {given})"), store.count(f"{_SAMPLES} AND {came}")


def with_alarm(store: Store, signals: Signals, alarm: DriftAlarm | None) -> Signals:
    """Add a drift alarm and the number of labels of photos that came after its reference."""
    if alarm is None:
        return signals
    labels = store.count(f"{_LABELLED} AND received_at_ms > {alarm.since_ms}")
    return replace(signals, alarm=alarm, drift_labels=labels)


def _drift(
    store: Store, model_version: int, trained_at: int | None, count: int
) -> tuple[Literal["audits", "samples"], Scores, Scores]:
    """Read a version's confidences before and since the last training.

    Audits are drawn at random, independently of the harvest policy. The choice of other samples follows the
    policy, so that a new policy alone would look like drift: they are used only if there are too few audits.
    """
    audits = _confidences(store, f"{_SAMPLES} AND lane = '{AUDIT}'", model_version, trained_at, count)
    if min(map(len, audits)) >= count:
        return "audits", *audits
    return "samples", *_confidences(store, _SAMPLES, model_version, trained_at, count)


def _confidences(
    store: Store, condition: str, model_version: int, trained_at: int | None, count: int
) -> tuple[Scores, Scores]:
    """Read the reference confidences and the recent ones, at most `count` each.

    The reference is the newest `count` samples that the last training saw, or the first ones of all if it saw
    fewer. Recent are the newest ones received after the reference.
    """
    where = f"{condition} AND confidence IS NOT NULL AND model_version = {model_version}"
    if trained_at is not None and store.count(where, trained_at) >= count:
        reference = _read_scores(store, where, count, newest=True, version=trained_at)
    else:
        reference = _read_scores(store, where, count)
    if not reference:
        return _in_order([]), _in_order([])
    last = max(reference)
    # By time and id: several samples may be received in one millisecond, and none may be on both sides.
    after = (
        f"(received_at_ms > {last.received_at_ms}"
        f" OR received_at_ms = {last.received_at_ms} AND photo_id > '{last.photo_id}')"
    )
    return _in_order(reference), _in_order(_read_scores(store, f"{where} AND {after}", count, newest=True))


def _read_scores(
    store: Store, where: str, limit: int, *, newest: bool = False, version: int | None = None
) -> "list[_Score]":
    """Read the first samples, or the newest ones, by time of arrival."""
    order = ("-received_at_ms", "-photo_id") if newest else ("received_at_ms", "photo_id")
    rows = store.scan(_Score.__struct_fields__, where=where, version=version, limit=limit, order=order)
    return list(typed_rows(rows, _Score))


def _in_order(scores: "list[_Score]") -> Scores:
    return np.array([score.confidence for score in sorted(scores)], float)


def _audit(store: Store, model_version: int, new_labels: set[tuple[str, str]]) -> AuditStats:
    """Return the audit of a version by photos with a new label."""
    return AuditStats.from_outcomes(
        answer.outcome
        for answer in audited_answers(store, f"model_version = {model_version}")
        if (answer.photo_id, answer.human_label) in new_labels
    )


class _Score(msgspec.Struct, frozen=True, order=True):
    """A confidence; compares by arrival."""

    received_at_ms: int
    photo_id: str
    confidence: float


def trained_dataset_version(store: Store, card: Card | None) -> int | None:
    """Return the dataset version that a model was trained from, None if the dataset no longer has it."""
    return None if card is None else readable_version(store, card.dataset_version)


def _labels(store: Store, version: int | None = None, where: str = "TRUE") -> set[tuple[str, str]]:
    rows = store.scan(["photo_id", "human_label"], where=f"{_LABELLED} AND {where}", version=version)
    return {(str(row["photo_id"]), str(row["human_label"])) for row in rows}
