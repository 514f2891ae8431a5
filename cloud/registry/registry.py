"""TODO."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from cloud.registry.model_card import _EXTRA, FILE_NAME, Card, read_card
from schemas.errors import PermanentError


def card_path(directory: Path) -> Path:
    """Where a version's directory has its card."""
    return directory / _EXTRA / FILE_NAME


def cards_in(models: Path) -> list[Card]:
    """Read the cards of all versions below a directory, oldest first; none if it does not exist.

    Raises:
        PermanentError: A card is none, or what is kept of a rollout is no rollout's state.
    """
    numbers = sorted(int(path.name) for path in models.glob("*") if path.name.isdecimal())
    paths = [card_path(models / str(number)) for number in numbers]
    cards = [read_card(path) for path in paths if path.is_file()]
    returned = {version for version in numbers if _went_back(models / f"rollout-{version}.json")}
    return [structs.replace(card, returned=card.version in returned) for card in cards]


class _Ended(msgspec.Struct):
    """What `cloud/rollout/controller.py` remembers of a rollout, as far as it matters here."""

    phase: str


def _went_back(path: Path) -> bool:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Ended).phase == "returned"
    except FileNotFoundError:
        return False
    except msgspec.MsgspecError as error:
        raise PermanentError(f"rollout {path}", expected="a rollout's state", got=error) from None


def is_promoted(card: Card) -> bool:
    """Tell whether a version may be served: the gate let it pass, and no rollout brought it back."""
    return not card.returned and (card.verdict is None or card.verdict.decision == "promote")


def served(cards: Sequence[Card]) -> Card | None:
    """Return the card of the version that is to be served: the newest that the gate let pass."""
    return next((card for card in reversed(cards) if is_promoted(card)), None)


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that a new one has to beat.

    Attributes:
        directory: its SavedModel.
        card: what it is.
        best_gold_accuracy: by gold set, the highest accuracy of any champion so far.
    """

    directory: Path
    card: Card
    best_gold_accuracy: dict[str, float]


def find_champion(models: Path, *, without: int | None = None) -> Champion | None:
    """Return the newest version that the gate promoted, or that met no champion; None if there is none.

    Args:
        models: folder of the version directories.
        without: leave out this version, as if it had never been.
    """
    promoted = [card for card in cards_in(models) if is_promoted(card) and card.version != without]
    if not promoted:
        return None
    best: dict[str, float] = {}
    for card in promoted:
        if card.metrics is not None and card.gold_digest is not None:
            best[card.gold_digest] = max(best.get(card.gold_digest, 0.0), card.metrics.accuracy)
    return Champion(models / str(promoted[-1].version), promoted[-1], best)


def _next_version(arguments: Namespace) -> int:
    """Return the number of the new version."""
    out: Path = arguments.out
    there = [int(path.name) for path in out.iterdir() if path.name.isdecimal()] if out.is_dir() else []
    if arguments.version in there:
        raise PermanentError(
            f"version {arguments.version}", expected="a new number", got=f"one that is in {out}"
        )
    return arguments.version or max(there, default=0) + 1
