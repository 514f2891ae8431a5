"""A new model meets the champion: which one that is, what both answer, and the gate's verdict."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cloud import gate
from cloud.candidates import label_numbers
from cloud.card import FILE_NAME, Card, is_promoted, read_card
from cloud.examples import Example
from cloud.export import EXTRA
from cloud.head import Floats
from cloud.saved import SavedModel

_ROUNDS = 15


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


def gold_digest(gold: Sequence[Example]) -> str:
    """Return a name for a gold set: 128-bit BLAKE2b over the ids and labels of its photos."""
    lines = sorted(f"{photo.photo_id} {photo.label}\n" for photo in gold)
    return blake2b("".join(lines).encode(), digest_size=16).hexdigest()


def find_champion(models: Path) -> Champion | None:
    """Return the newest version that the gate promoted, or that met no champion; None if there is none.

    Args:
        models: folder of the version directories.
    """
    numbers = [int(path.name) for path in models.glob("*") if path.name.isdecimal()]
    promoted: list[tuple[Path, Card]] = []
    for directory in (models / str(number) for number in sorted(numbers)):
        path = directory / EXTRA / FILE_NAME
        if path.exists() and is_promoted(card := read_card(path)):
            promoted.append((directory, card))
    if not promoted:
        return None
    best: dict[str, float] = {}
    for _, card in promoted:
        if card.metrics is not None and card.gold_digest is not None:
            best[card.gold_digest] = max(best.get(card.gold_digest, 0.0), card.metrics.accuracy)
    return Champion(*promoted[-1], best)


def challenge(
    champion: Champion,
    challenger: Path,
    gold: Sequence[Example],
    *,
    backbone: str,
    classes: Sequence[str],
    seed: int,
) -> gate.Verdict:
    """Let both answer the gold photos, and decide.

    Args:
        champion: the version in service.
        challenger: the new version's SavedModel.
        gold: at least one photo, labelled with the challenger's classes.
        backbone: the challenger's.
        classes: the challenger's, in the order of its outputs; those that the champion does not know it
            never answers.
        seed: of the resampling.
    """
    photos = [photo.image for photo in gold]
    truth = label_numbers(gold, classes)
    with SavedModel(champion.directory) as before, SavedModel(challenger) as after:
        answers = gate.Answers(
            champion=_by_class(before.ask(photos)["probabilities"], champion.card.classes, classes),
            challenger=after.ask(photos)["probabilities"].astype(np.float64),
            truth=truth,
            weights=np.ones(len(gold)),
        )
        # Of the same network only the numbers differ, and a measurement would be noise.
        same = backbone == champion.card.backbone
        ratio = None if same else _latency_ratio(before, after, photos[0])
    right = float((answers.champion.argmax(axis=1) == truth).mean())
    best = max(right, champion.best_gold_accuracy.get(gold_digest(gold), 0.0))
    evidence = gate.Evidence(answers, best, classes, latency_ratio=ratio)
    return gate.judge(evidence, champion.card.version, seed=seed)


def _by_class(probabilities: NDArray[np.float32], of: Sequence[str], classes: Sequence[str]) -> Floats:
    """Bring columns into the order of other classes; a class that is not there has probability 0."""
    columns = {name: probabilities[:, position] for position, name in enumerate(of)}
    absent = np.zeros(len(probabilities))
    return np.stack([columns.get(name, absent) for name in classes], axis=1).astype(np.float64)


def _latency_ratio(before: SavedModel, after: SavedModel, photo: bytes) -> float:
    """Return how many times longer the second one takes for a photo: medians, measured in turns."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + _ROUNDS):
        for model, times in zip((before, after), took, strict=True):
            began = time.perf_counter()
            model.ask([photo])
            times.append(time.perf_counter() - began)
    first, second = (median(times[1:]) for times in took)
    return second / first
