"""A version as its page shows it: confusion, comparison with the champion, and its mistakes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from cloud.evaluation.metrics import wilson_interval
from cloud.evaluation.paired_comparison import Comparison
from cloud.registry.gold_mistakes import GoldMistakes
from cloud.registry.model_card import Card
from cloud.registry.registry import is_promoted
from schemas.messages import Release, Status
from schemas.topics import HANDLERS

MAX_CLASSES = 24
"""With more classes, the confusion matrix is not shown whole: it would be unreadable."""
MAX_MISTAKES = 24
_TONES = 9


class Cell(NamedTuple):
    """A cell of the confusion matrix; `tone` is its share of the row in tenths."""

    photos: int
    share: float
    tone: int
    right: bool


class Row(NamedTuple):
    """A true class with what it was taken for."""

    name: str
    photos: int
    cells: list[Cell]


class Recall(NamedTuple):
    """Recall of a class with its 95 % interval."""

    name: str
    photos: int
    low: float
    share: float
    high: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """A photo whose human label differs from the answer of a version.

    Attributes:
        photo_id: Of the photo.
        answer: The version's.
        truth: The person's.
        confidence: Of the answer.
        corrected: Whether the label has been changed to the answer since the version was measured.
    """

    photo_id: str
    answer: str
    truth: str
    confidence: float
    corrected: bool = False


class VersionView(NamedTuple):
    """A version in the list."""

    card: Card
    state: str
    nodes: list[str]


def versions(
    cards: Sequence[Card], statuses: Iterable[Status], releases: Mapping[str, Release]
) -> list[VersionView]:
    """Return all versions, newest first, each with the nodes that serve it.

    Args:
        cards: Oldest first.
        statuses: Of all components.
        releases: What each node should serve.
    """
    serving: dict[int, list[str]] = {}
    for status in statuses:
        if status.name == HANDLERS[0] and status.model is not None and status.model.version is not None:
            serving.setdefault(status.model.version, []).append(status.node)
    wanted = {one.version if one.stage == "all" else one.baseline for one in releases.values()}
    tried = {one.version for one in releases.values()}
    return [
        VersionView(card, _state(card, wanted, tried), sorted(serving.get(card.version, [])))
        for card in reversed(cards)
    ]


def _state(card: Card, wanted: set[int | None], tried: set[int]) -> str:
    if card.rolled_back:
        return "returned"
    if card.version in wanted:
        return "released"
    if card.version in tried:
        return "tried"
    if is_promoted(card):
        return "promoted"
    return "kept" if card.verdict is not None and card.verdict.decision == "keep" else "inconclusive"


def confusion(card: Card) -> list[Row]:
    """Return the confusion matrix on gold photos; empty without one, or with too many classes."""
    if card.metrics is None or len(card.classes) > MAX_CLASSES:
        return []
    # The matrix may have more classes than the model: those of gold photos that it does not know.
    names = [*card.classes, *("?" for _ in range(len(card.metrics.confusion) - len(card.classes)))]
    return [
        _row(name, at, counts)
        for at, (name, counts) in enumerate(zip(names, card.metrics.confusion, strict=True))
    ]


def _row(name: str, truth: int, counts: Sequence[int]) -> Row:
    total = sum(counts)
    cells = [
        Cell(count, count / max(1, total), min(_TONES, round(10 * count / max(1, total))), at == truth)
        for at, count in enumerate(counts)
    ]
    return Row(name, total, cells)


def recalls(card: Card) -> list[Recall]:
    """Return the recall of each class that has gold photos, the worst first."""
    if card.metrics is None:
        return []
    totals = {name: sum(row) for name, row in zip(card.classes, card.metrics.confusion, strict=False)}
    found = [
        Recall(name, totals.get(name, 0), 0.0, share, 1.0) for name, share in card.metrics.recall.items()
    ]
    return sorted((_with_interval(one) for one in found), key=lambda one: one.share)


def _with_interval(one: Recall) -> Recall:
    if not one.photos:
        return one
    low, high = wilson_interval(one.share * one.photos, one.photos)
    return one._replace(low=low, high=high)


def comparisons(card: Card) -> list[tuple[str, Comparison]]:
    """Return what the gate compared, by kind of photo: `gold`, `audit` or `held-out`."""
    verdict = card.verdict
    if verdict is None:
        return []
    kinds = (("gold", verdict.gold), ("audit", verdict.audit), ("held-out", verdict.held_out))
    return [(kind, one) for kind, one in kinds if one is not None]


def mistakes(store: Store, version: int) -> list[Mistake]:
    """Return samples whose human label differs from the answer of a version, most confident first.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    where = (
        f"{HAS_IMAGE} AND model_version = {int(version)} AND human_label IS NOT NULL AND {HAS_HUMAN_CLASS}"
        " AND edge_label IS NOT NULL AND edge_label != human_label"
    )
    columns = ["photo_id", "edge_label", "human_label", "confidence"]
    rows = store.scan(columns, where=where, limit=MAX_MISTAKES, order=["-confidence", "photo_id"])
    return [
        Mistake(
            str(row["photo_id"]),
            str(row["edge_label"]),
            str(row["human_label"]),
            float(str(row["confidence"] or 0)),
        )
        for row in rows
    ]


def mistakes_on_gold(store: Store, found: GoldMistakes) -> list[Mistake]:
    """Return mistakes on the gold set whose photo is still in the dataset, with the label that it has now.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    rows = store.find([one.photo_id for one in found.surest], ["human_label", "forgotten_at_ms"])
    # A photo that was taken out leaves a row without its picture.
    labels = {key: row["human_label"] for key, row in rows.items() if row["forgotten_at_ms"] is None}
    return [
        Mistake(one.photo_id, one.answer, label, one.confidence, label == one.answer)
        for one in found.surest
        if one.photo_id in labels and (label := str(labels[one.photo_id] or one.truth))
    ]
