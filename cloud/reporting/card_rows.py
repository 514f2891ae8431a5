"""The figures of a model card as rows of text, for reports, comparisons and the terminal."""

from collections.abc import Sequence

from cloud.evaluation.metrics import Metrics
from cloud.registry.model_card import Card

_NONE = "-"


def card_rows(card: Card) -> list[tuple[str, str]]:
    """Return what a version was made of and how good it is, the same names for every version."""
    metrics, calibration = card.metrics, card.calibration
    return [
        ("created", card.created_at),
        ("backbone", card.backbone),
        ("trained to replace", _NONE if card.parent is None else f"version {card.parent}"),
        ("dataset version", _text(card.dataset_version)),
        ("photos used", str(sum(sum(sources.values()) for sources in card.examples_used.values()))),
        ("candidate", card.chosen),
        ("other backbones tried", ", ".join(card.others) or "none"),
        ("gold accuracy", accuracy_text(metrics)),
        ("gold set", _NONE if card.gold_digest is None else card.gold_digest[:8]),
        ("temperature", f"{card.temperature:.3g}"),
        ("calibration error on gold", _change(calibration.gold_before, calibration.gold_after)),
        (
            "calibration error on held-out labels",
            _change(calibration.held_out_before, calibration.held_out_after),
        ),
        ("promotion gate", _verdict(card)),
        ("LiteRT variants", ", ".join(one.name for one in card.variants if one.served) or "none"),
        ("lane auto", "on" if card.auto else "should be off"),
        ("seed", str(card.seed)),
        ("code", _text(card.commit)),
        ("training took", f"{card.training_s:.1f} s"),
        ("libraries", ", ".join(f"{name} {number}" for name, number in card.libraries.items())),
    ]


def recall_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """Return the recall of each class, a row per class and a column per version."""
    classes = dict.fromkeys(name for card in cards for name in card.classes)
    return [(f"recall of {name}", *(_recall(card.metrics, name) for card in cards)) for name in classes]


def accuracy_text(metrics: Metrics | None) -> str:
    """Return the accuracy with its interval and the number of photos."""
    if metrics is None:
        return "not measured"
    interval = f"{metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%}"
    return f"{metrics.accuracy:.1%} of {metrics.photos} photos (95 % interval {interval})"


def _recall(metrics: Metrics | None, name: str) -> str:
    recall = None if metrics is None else metrics.recall.get(name)
    return _NONE if recall is None else f"{recall:.1%}"


def _verdict(card: Card) -> str:
    if card.verdict is None:
        return "no champion to beat"
    return f"{card.verdict.decision}, against version {card.verdict.champion}"


def _change(before: float | None, after: float | None) -> str:
    return _NONE if before is None or after is None else f"{before:.1%}, with the temperature {after:.1%}"


def _text(value: object) -> str:
    return _NONE if value is None else str(value)
