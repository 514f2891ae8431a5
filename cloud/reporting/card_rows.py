"""The figures of a model card as rows of text, for reports, comparisons and the terminal."""

from collections.abc import Sequence

from bus.diagnosis.sentence import Sentence
from cloud.evaluation.metrics import Metrics
from cloud.evaluation.promotion_gate import GateDecision
from cloud.registry.model_card import Card

_NONE = "-"
_DECISIONS: dict[GateDecision, Sentence] = {
    "promote": Sentence("promote"),
    "keep": Sentence("keep"),
    "inconclusive": Sentence("inconclusive"),
}


def card_rows(card: Card) -> list[tuple[str, str]]:
    """Return what a version was made of and how good it is, the same names for every version."""
    metrics, calibration = card.metrics, card.calibration
    return [
        (Sentence("created"), card.created_at),
        (Sentence("backbone"), card.backbone),
        (
            Sentence("trained to replace"),
            _NONE if card.parent is None else Sentence("version %(number)s", number=card.parent),
        ),
        (Sentence("dataset version"), _text(card.dataset_version)),
        (Sentence("photos used"), str(sum(sum(sources.values()) for sources in card.examples_used.values()))),
        (Sentence("candidate"), card.chosen),
        (Sentence("other backbones tried"), ", ".join(card.others) or Sentence("none")),
        (Sentence("gold accuracy"), accuracy_text(metrics)),
        (Sentence("gold set"), _NONE if card.gold_digest is None else card.gold_digest[:8]),
        (Sentence("temperature"), f"{card.temperature:.3g}"),
        (Sentence("calibration error on gold"), _change(calibration.gold_before, calibration.gold_after)),
        (
            Sentence("calibration error on held-out labels"),
            _change(calibration.held_out_before, calibration.held_out_after),
        ),
        (Sentence("promotion gate"), _verdict(card)),
        (
            Sentence("LiteRT variants"),
            ", ".join(one.name for one in card.variants if one.served) or Sentence("none"),
        ),
        (Sentence("lane auto"), Sentence("on") if card.auto else Sentence("should be off")),
        (Sentence("seed"), str(card.seed)),
        (Sentence("code"), _text(card.commit)),
        (Sentence("training took"), Sentence("%(seconds)s s", seconds=round(card.training_s, 1))),
        (Sentence("libraries"), ", ".join(f"{name} {number}" for name, number in card.libraries.items())),
    ]


def recall_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """Return the recall of each class, a row per class and a column per version."""
    classes = dict.fromkeys(name for card in cards for name in card.classes)
    return [
        (Sentence("recall of %(name)s", name=name), *(_recall(card.metrics, name) for card in cards))
        for name in classes
    ]


def accuracy_text(metrics: Metrics | None) -> str:
    """Return the accuracy with its interval and the number of photos."""
    if metrics is None:
        return Sentence("not measured")
    return Sentence(
        "%(share)s of %(photos)s photos (95 %% interval %(low)s to %(high)s)",
        share=_percent(metrics.accuracy),
        photos=metrics.photos,
        low=_percent(metrics.accuracy_low),
        high=_percent(metrics.accuracy_high),
    )


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _recall(metrics: Metrics | None, name: str) -> str:
    recall = None if metrics is None else metrics.recall.get(name)
    return _NONE if recall is None else f"{recall:.1%}"


def _verdict(card: Card) -> str:
    if card.verdict is None:
        return Sentence("no champion to beat")
    return Sentence(
        "%(decision)s, against version %(number)s",
        decision=_DECISIONS[card.verdict.decision],
        number=card.verdict.champion,
    )


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return _NONE
    return Sentence(
        "%(before)s, with the temperature %(after)s", before=_percent(before), after=_percent(after)
    )


def _text(value: object) -> str:
    return _NONE if value is None else str(value)
