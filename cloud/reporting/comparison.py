"""Versions side by side."""

from collections.abc import Sequence

from bus.diagnosis.sentence import Sentence
from cloud.registry.model_card import Card
from cloud.reporting.card_rows import card_rows, recall_rows
from cloud.reporting.page import columns_table, confusion_table, page
from cloud.reporting.plots import recall_bars

_OTHER_GOLD = Sentence(
    "measured on different gold sets: compare the figures with care, or run 'gleaner cloud evaluate' for both"
)


def comparison_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """Return name and one value per version, for all figures that the cards have."""
    columns = [card_rows(card) for card in cards]
    rows = [(cells[0][0], *(value for _, value in cells)) for cells in zip(*columns, strict=True)]
    return [*rows, *recall_rows(cards)]


def comparison_notes(cards: Sequence[Card]) -> list[str]:
    """Return what has to be known to compare the figures."""
    digests = {card.gold_digest for card in cards}
    notes = [_OTHER_GOLD] if len(digests) > 1 else []
    classes = {tuple(card.classes) for card in cards}
    return [*notes, *([Sentence("their classes differ")] if len(classes) > 1 else [])]


def render_comparison(cards: Sequence[Card]) -> str:
    """Return a page with the figures, the confusion matrices and the recalls side by side."""
    names = [f"version {card.version}" for card in cards]
    title = f"{' and '.join(names)}".capitalize()
    bars = (
        f"<figure><figcaption>{name}</figcaption>{recall_bars(card.metrics, card.classes)}</figure>"
        for name, card in zip(names, cards, strict=True)
        if card.metrics is not None
    )
    parts = [
        *(f"<p>{note}</p>" for note in comparison_notes(cards)),
        columns_table(("", *names), comparison_rows(cards)),
        "<h2>Confusion on gold</h2><div class='side'>" + "".join(map(confusion_table, cards)) + "</div>",
        "<h2>Recall by class</h2><div class='side'>" + "".join(bars) + "</div>",
    ]
    return page(f"Gleaner: {title}", title, parts)
