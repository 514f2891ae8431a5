"""What a trigger decides by, read from the dataset and the cards: nothing else is remembered."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from bus.mqtt.presence import now_ms
from cloud.dataset.example import AUDIT_LANE
from cloud.dataset.store import NAMED, PHOTOS, Store
from cloud.evaluation.audit_set import audited_answers
from cloud.evaluation.audit_stats import AuditStats
from cloud.registry.model_card import Card
from cloud.registry.registry import newest_promoted
from cloud.retraining.triggers import Facts, Scores, Triggers
from schemas.errors import PermanentError

_SAMPLES = f"{PHOTOS} AND origin = 'sample'"
_LABELLED = f"{PHOTOS} AND {NAMED} AND split != 'gold'"


def drift_signals(store: Store, lineage: Sequence[Card], rules: Triggers) -> Facts:
    """Compare the dataset with what the last training saw of it.

    Args:
        store: The dataset.
        lineage: Cards of all versions, the oldest first.
        rules: How many samples to compare.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    last, serving = lineage[-1] if lineage else None, newest_promoted(lineage)
    seen = _version(store, last)
    fresh = _labels(store, None) - (set() if seen is None else _labels(store, seen))
    facts = Facts(
        labels=len(fresh),
        samples=store.count(_SAMPLES) - (0 if seen is None else store.count(_SAMPLES, seen)),
        last_round_s=None if last is None else (now_ms() - last.created_at_ms) / 1000,
    )
    if serving is None:
        return facts
    compared, reference, recent = _drift(store, serving.version, seen, rules.drift_samples)
    return replace(
        facts,
        reference=reference,
        recent=recent,
        compared=compared,
        audit=_audit(store, serving.version, fresh),
        accuracy_low=None if serving.metrics is None else serving.metrics.accuracy_low,
    )


def _drift(
    store: Store, model_version: int, seen: int | None, most: int
) -> tuple[Literal["audits", "samples"], Scores, Scores]:
    """Read how sure a version was: of audits, which no policy chooses, or of samples if those are few."""
    audits = _confidences(store, f"{_SAMPLES} AND lane = '{AUDIT_LANE}'", model_version, seen, most)
    if min(map(len, audits)) >= most:
        return "audits", *audits
    return "samples", *_confidences(store, _SAMPLES, model_version, seen, most)


def _confidences(
    store: Store, which: str, model_version: int, seen: int | None, most: int
) -> tuple[Scores, Scores]:
    """Read how sure a version was of the samples to compare with, and of those to compare.

    The reference are the newest that the last round saw, or, if it saw too few, the first of all; then come
    the newest behind the reference. No others are read.
    """
    where = f"{which} AND confidence IS NOT NULL AND model_version = {model_version}"
    if seen is not None and store.count(where, seen) >= most:
        reference = _scored(store, where, most, newest=True, version=seen)
    else:
        reference = _scored(store, where, most)
    if not reference:
        return _scores([]), _scores([])
    last = max(reference)
    behind = (
        f"(received_at_ms > {last.received_at_ms}"
        f" OR received_at_ms = {last.received_at_ms} AND photo_id > '{last.photo_id}')"
    )
    return _scores(reference), _scores(_scored(store, f"{where} AND {behind}", most, newest=True))


def _scored(
    store: Store, where: str, most: int, *, newest: bool = False, version: int | None = None
) -> "list[_Scored]":
    """Read the first, or the newest, by time of arrival."""
    order = ("-received_at_ms", "-photo_id") if newest else ("received_at_ms", "photo_id")
    rows = store.scan(_Scored.__struct_fields__, where=where, version=version, limit=most, order=order)
    return [msgspec.convert(row, _Scored) for row in rows]


def _scores(scored: "list[_Scored]") -> Scores:
    return np.array([one.confidence for one in sorted(scored)], float)


def _audit(store: Store, model_version: int, fresh: set[tuple[str, str]]) -> AuditStats:
    """Return the audit of a version by those photos whose label is fresh."""
    return AuditStats.from_outcomes(
        answer.outcome
        for answer in audited_answers(store, f"model_version = {model_version}")
        if (answer.photo_id, answer.human_label) in fresh
    )


class _Scored(msgspec.Struct, frozen=True, order=True):
    """A confidence, in the order of arrival."""

    received_at_ms: int
    photo_id: str
    confidence: float


def _version(store: Store, card: Card | None) -> int | None:
    """Return the dataset's version that a model was trained from; None if nobody has kept it."""
    if card is None or card.dataset_version is None:
        return None
    try:
        store.count(version=card.dataset_version)
    except PermanentError:
        return None
    return card.dataset_version


def _labels(store: Store, version: int | None) -> set[tuple[str, str]]:
    rows = store.scan(["photo_id", "human_label"], where=_LABELLED, version=version)
    return {(str(row["photo_id"]), str(row["human_label"])) for row in rows}
