"""A new model meets the champion: which one that is, what both answer, and the gate's verdict."""

import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.dataset.example import Example, by_content, label_numbers
from cloud.evaluation import promotion_gate
from cloud.evaluation.metrics import Metrics, calibration_errors, measure
from cloud.export.v1_loader import SavedModel
from cloud.modeling.arrays import Floats
from cloud.registry.model_card import Calibration, Card
from cloud.registry.registry import Champion

_ROUNDS = 15
_LEAST = 1e-12  # probability, so that it has a logarithm


def gold_digest(gold: Sequence[Example]) -> str:
    """Return a name for a gold set: 128-bit BLAKE2b over the ids and labels of its photos."""
    lines = sorted(f"{photo.photo_id} {photo.label}\n" for photo in gold)
    return blake2b("".join(lines).encode(), digest_size=16).hexdigest()


def evaluate_challenger(
    champion: Champion,
    challenger: Path,
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    backbone: str,
    classes: Sequence[str],
    seed: int,
) -> promotion_gate.Verdict:
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
    evidence = promotion_gate.Evidence(
        on_gold, best_so_far(champion, gold, on_gold), classes, on_audit, ratio
    )
    return promotion_gate.decide_promotion(evidence, champion.card.version, seed=seed)


def best_so_far(
    champion: Champion, gold: Sequence[Example], answers: promotion_gate.PairedPredictions | None
) -> float:
    """Return the highest accuracy of any champion on a gold set: by the cards, and by the answers."""
    right = 0.0 if answers is None else float(answers.correct[0].mean())
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
    before, after = calibration_errors(logits, truth, card.temperature)
    calibration = structs.replace(card.calibration, gold_before=before, gold_after=after)
    return measure(probabilities, truth, classes), calibration


def _with_labels(classes: Sequence[str], photos: Sequence[Example]) -> list[str]:
    """Return the classes and behind them what else the photos are labelled."""
    return list(dict.fromkeys([*classes, *(photo.label for photo in photos)]))


class _Pair(NamedTuple):
    """Champion and challenger, each with its classes."""

    champion: tuple[SavedModel, Sequence[str]]
    challenger: tuple[SavedModel, Sequence[str]]

    def answer(self, photos: Sequence[Example]) -> promotion_gate.PairedPredictions | None:
        """Answer with the challenger's classes first and then those that only the labels have."""
        if not photos:
            return None
        classes = _with_labels(self.challenger[1], photos)
        images = [photo.image for photo in photos]
        champion, challenger = (
            _by_class(model.ask(images)["probabilities"], of, classes) for model, of in self
        )
        weights = np.array([photo.weight for photo in photos])
        return promotion_gate.PairedPredictions(champion, challenger, label_numbers(photos, classes), weights)


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
