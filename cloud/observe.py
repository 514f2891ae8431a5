"""What a trigger decides by, read from the dataset and the cards: nothing else is remembered."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from bus.presence import now_ms
from cloud.audit import answers
from cloud.card import Card, served
from cloud.judged import Audit
from cloud.store import PHOTOS, Store
from cloud.triggers import Facts, Scores, Triggers, windows
from schemas.errors import PermanentError

_SAMPLES = f"{PHOTOS} AND origin = 'sample'"
_LABELLED = f"{PHOTOS} AND human_label IS NOT NULL AND split != 'gold'"


def observe(store: Store, lineage: Sequence[Card], rules: Triggers) -> Facts:
    """Compare the dataset with what the last training saw of it.

    Args:
        store: The dataset.
        lineage: Cards of all versions, the oldest first.
        rules: How many samples to compare.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    last, serving = lineage[-1] if lineage else None, served(lineage)
    seen = _version(store, last)
    fresh = _labels(store, None) - (set() if seen is None else _labels(store, seen))
    facts = Facts(
        labels=len(fresh),
        samples=store.count(_SAMPLES) - (0 if seen is None else store.count(_SAMPLES, seen)),
        last_round_s=None if last is None else (now_ms() - last.created_at_ms) / 1000,
    )
    if serving is None:
        return facts
    reference, recent = _confidences(store, serving.version, seen, rules.drift_samples)
    return replace(
        facts,
        reference=reference,
        recent=recent,
        audit=_audit(store, serving.version, fresh),
        accuracy_low=None if serving.metrics is None else serving.metrics.accuracy_low,
    )


def _confidences(store: Store, model_version: int, seen: int | None, most: int) -> tuple[Scores, Scores]:
    """Read how sure a version was of samples: of those to compare with, and of those to compare."""
    where = f"{_SAMPLES} AND confidence IS NOT NULL AND model_version = {model_version}"
    scored = sorted(
        msgspec.convert(row, _Scored) for row in store.scan(_Scored.__struct_fields__, where=where)
    )
    before = 0 if seen is None else store.count(where, seen)
    return windows([score.confidence for score in scored], before, most)


def _audit(store: Store, model_version: int, fresh: set[tuple[str, str]]) -> Audit:
    """Return the audit of a version by those photos whose label is fresh."""
    return Audit.of(
        answer.judged
        for answer in answers(store, f"model_version = {model_version}")
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
