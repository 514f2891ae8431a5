"""The versions in a folder of models, by their cards; without TensorFlow, for those who only look."""

from collections.abc import Sequence
from pathlib import Path

from cloud.card import FILE_NAME, Card, is_promoted, read_card


def cards(models: Path) -> list[Card]:
    """Read the cards of all whole versions, the oldest first."""
    found = {
        int(path.parts[-3]): path
        for path in models.glob(f"*/assets.extra/{FILE_NAME}")
        if path.parts[-3].isdecimal()
    }
    return [read_card(found[number]) for number in sorted(found)]


def served(lineage: Sequence[Card]) -> Card | None:
    """Return the card of the version that is to be served: the newest that the gate let pass."""
    return next((card for card in reversed(lineage) if is_promoted(card)), None)
