"""A new model meets the champion: which one that is, what both answer, and the gate's verdict."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud import gate
from cloud.candidates import label_numbers
from cloud.card import Calibration, Card, cards_in, is_promoted
from cloud.evaluate import Metrics, calibrated, measure
from cloud.examples import Example, by_content
from cloud.head import Floats
from cloud.saved import SavedModel

_ROUNDS = 15
_LEAST = 1e-12  # probability, so that it has a logarithm


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


def challenge(
    champion: Champion,
    challenger: Path,
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    backbone: str,
    classes: Sequence[str],
    seed: int,
) -> gate.Verdict:
    """Let both answer the photos, and decide. Their order does not matter.

    Args:
        champion: the version in service.
        challenger: the new version's SavedModel.
        gold: labelled with the challenger's classes.
        audit: the fresh audit slice, with weights; a label that a version does not know it gets wrong.
        backbone: the challenger's.
        classes: the challenger's, in the order of its outputs.
        seed: of the resampling.
    """
    gold, audit = by_content(gold), by_content(audit)
    with SavedModel(champion.directory) as before, SavedModel(challenger) as after:
        pair = _Pair((before, champion.card.classes), (after, classes))
        on_gold, on_audit = pair.answer(gold), pair.answer(audit)
        # Of the same network only the numbers differ, and a measurement would be noise.
        measurable = (*gold, *audit) if backbone != champion.card.backbone else ()
        ratio = _latency_ratio(before, after, measurable[0].image) if measurable else None
    evidence = gate.Evidence(on_gold, best_so_far(champion, gold, on_gold), classes, on_audit, ratio)
    return gate.judge(evidence, champion.card.version, seed=seed)


def best_so_far(champion: Champion, gold: Sequence[Example], answers: gate.Answers | None) -> float:
    """Return the highest accuracy of any champion on a gold set: by the cards, and by the answers."""
    right = 0.0 if answers is None else float(answers.right[0].mean())
    return max(right, champion.best_gold_accuracy.get(gold_digest(gold), 0.0))


def measure_again(directory: Path, card: Card, gold: Sequence[Example]) -> tuple[Metrics, Calibration]:
    """Measure a version on disk on the gold set as it is now.

    Args:
        directory: its SavedModel.
        card: what it is.
        gold: at least one photo; a label that the version does not know it gets wrong.

    Returns:
        Its figures, and its calibration with the card's for held-out labels.
    """
    classes = _with_labels(card.classes, gold)
    with SavedModel(directory) as saved:
        said = saved.ask([photo.image for photo in gold])["probabilities"]
    probabilities, truth = _by_class(said, card.classes, classes), label_numbers(gold, classes)
    logits = np.log(probabilities.clip(_LEAST)) * card.temperature  # up to a constant per photo
    before, after = calibrated(logits, truth, card.temperature)
    calibration = structs.replace(card.calibration, gold_before=before, gold_after=after)
    return measure(probabilities, truth, classes), calibration


def _with_labels(classes: Sequence[str], photos: Sequence[Example]) -> list[str]:
    """Return the classes and behind them what else the photos are labelled."""
    return list(dict.fromkeys([*classes, *(photo.label for photo in photos)]))


class _Pair(NamedTuple):
    """Champion and challenger, each with its classes."""

    champion: tuple[SavedModel, Sequence[str]]
    challenger: tuple[SavedModel, Sequence[str]]

    def answer(self, photos: Sequence[Example]) -> gate.Answers | None:
        """Answer with the challenger's classes first and then those that only the labels have."""
        if not photos:
            return None
        classes = _with_labels(self.challenger[1], photos)
        images = [photo.image for photo in photos]
        champion, challenger = (
            _by_class(model.ask(images)["probabilities"], of, classes) for model, of in self
        )
        weights = np.array([photo.weight for photo in photos])
        return gate.Answers(champion, challenger, label_numbers(photos, classes), weights)


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
