"""Champion evaluation: run challenger and champion on the same photos, and ask the promotion gate."""

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.dataset.example import Example, label_indices, sorted_by_content
from cloud.evaluation import promotion_gate
from cloud.evaluation.metrics import Metrics, calibration_errors, measure
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.export.v1_loader import GraphAnswers, SavedModel
from cloud.modeling.arrays import Floats
from cloud.modeling.offset_head import answer_by_groups
from cloud.registry.model_card import Calibration, Card
from cloud.registry.registry import Champion
from schemas import lanes
from schemas.codec import content_id
from schemas.groups.heads import GroupHeads, read_heads

_TIMED_CALLS = 15
_MIN_PROBABILITY = 1e-12  # 0 has no logarithm


def gold_digest(gold: Sequence[Example]) -> str:
    """Return the content id of a gold set: of the ids and labels of its photos, in any order."""
    lines = sorted(f"{photo.photo_id} {photo.label}\n" for photo in gold)
    return content_id("".join(lines).encode())


def evaluate_challenger(
    champion: Champion,
    challenger: Path,
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    held_out: "HeldOutAnswers | None" = None,
    labels: Collection[str] = (),
    backbone: str,
    classes: Sequence[str],
    seed: int,
    answers: GraphAnswers | None = None,
) -> promotion_gate.Verdict:
    """Run both versions on the same photos and return the gate's verdict. The photos' order does not matter.

    Args:
        champion: the version to beat, its classes as the dataset calls them now (`renamed_classes.py`).
        challenger: directory of the new version's SavedModel.
        gold: photos with labels of the challenger's classes; may be empty.
        audit: the fresh audit slice, with weights. A version is wrong on labels that it does not know.
        held_out: photos with a person's label that neither version was trained on, with the challenger's
            answers; with gold photos, only those that people were asked about (`HeldOutAnswers.asked`).
        labels: that people gave to other photos of the dataset; a class of the champion among them must
            not be lost.
        backbone: of the challenger.
        classes: of the challenger, in the order of its outputs.
        seed: of the bootstrap.
        answers: of the challenger's graph, if another gate asks it about the same photos.
    """
    gold, audit = sorted_by_content(gold), sorted_by_content(audit)
    with ExitStack() as opened:
        before = opened.enter_context(SavedModel(champion.directory))
        after = answers or opened.enter_context(GraphAnswers(challenger))
        pair = PairedModels(
            Contestant(before, champion.card.classes, read_heads(champion.directory)),
            Contestant(after, classes, read_heads(challenger)),
        )
        on_gold, on_audit = pair.answer(gold), pair.answer(audit)
        if gold and held_out is not None:
            held_out = held_out.asked()
        on_held_out = None if held_out is None else pair.compare_answered(held_out)
        # With the same backbone only the weights differ: the measurement would be noise.
        answered = () if held_out is None else held_out.photos
        measurable = (*gold, *audit, *answered) if backbone != champion.card.backbone else ()
        ratio = _latency_ratio(before, after.graph, measurable[0].image) if measurable else None
    labelled = {*labels, *(photo.label for photo in (*gold, *audit))}
    judged = gold or (*answered, *audit)
    evidence = promotion_gate.Evidence(
        on_gold,
        best_so_far(champion, gold, on_gold),
        list(dict.fromkeys(classes)),  # of merged classes each once, as the answers have them
        on_audit,
        ratio,
        on_held_out,
        lost_classes(champion.card.classes, classes, labelled),
        [photo.group for photo in judged] if any(photo.group for photo in judged) else (),
    )
    return promotion_gate.decide_promotion(evidence, champion.card.version, seed=seed)


def lost_classes(before: Sequence[str], after: Sequence[str], labelled: Collection[str]) -> list[str]:
    """Return the classes that only the champion knows and that photos of the dataset still have.

    A class that was renamed, merged or forgotten is on no photo any more: it was dropped on purpose.

    Args:
        before: classes of the champion.
        after: classes of the challenger.
        labelled: labels that people gave to photos of the dataset.
    """
    return [name for name in dict.fromkeys(before) if name not in after and name in labelled]


def best_so_far(champion: Champion, gold: Sequence[Example], answers: PairedPredictions | None) -> float:
    """Return the highest accuracy of any champion on a gold set, by cards and by the champion's answers.

    The gate compares with it too, so that small losses do not add up over many versions.
    """
    accuracy = 0.0 if answers is None else float(answers.correct[0].mean())
    return max(accuracy, champion.best_gold_accuracy.get(gold_digest(gold), 0.0))


def measure_again(directory: Path, card: Card, gold: Sequence[Example]) -> tuple[Metrics, Calibration]:
    """Measure a version on the gold set as it is now.

    Args:
        directory: its SavedModel.
        card: its card.
        gold: at least one photo. The version is wrong on labels that it does not know.

    Returns:
        Its metrics and its calibration; the part for held-out labels is the card's.
    """
    classes = _with_labels(card.classes, gold)
    with SavedModel(directory) as saved:
        answers = Contestant(saved, card.classes, read_heads(directory)).probabilities(gold)
    probabilities, truth = _by_class(answers, card.classes, classes), label_indices(gold, classes)
    # Logits before the temperature, up to a constant per photo, which the softmax ignores.
    logits = np.log(probabilities.clip(_MIN_PROBABILITY)) * card.temperature
    before, after = calibration_errors(logits, truth, card.temperature)
    calibration = structs.replace(card.calibration, gold_before=before, gold_after=after)
    return measure(probabilities, truth, classes), calibration


def _with_labels(classes: Sequence[str], photos: Sequence[Example]) -> list[str]:
    """Return the classes, followed by other labels of the photos."""
    return list(dict.fromkeys([*classes, *(photo.label for photo in photos)]))


class HeldOutAnswers(NamedTuple):
    """Photos with the challenger's answers to them, from trainings without them.

    Attributes:
        photos: N photos with a person's label.
        probabilities: `[N, K]`, in the order of the challenger's classes.
    """

    photos: Sequence[Example]
    probabilities: Floats

    def asked(self) -> "HeldOutAnswers":
        """Return those of cameras' photos that people were asked about.

        What they report of their own accord, in lane feedback, are mistakes of the champion: any other
        version would seem better.
        """
        rows = [row for row, one in enumerate(self.photos) if one.sampled and one.lane != lanes.FEEDBACK]
        return HeldOutAnswers([self.photos[row] for row in rows], self.probabilities[rows])


class Predictor(Protocol):
    """A loaded model."""

    def predict(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Return `probabilities` `[N, K]` of encoded photos, and other outputs."""


class Contestant(NamedTuple):
    """A version that is compared with another one.

    Attributes:
        model: loaded.
        classes: in the order of its outputs.
        heads: of groups of devices, None without any.
    """

    model: Predictor
    classes: Sequence[str]
    heads: GroupHeads | None = None

    def probabilities(self, photos: Sequence[Example]) -> NDArray[np.floating]:
        """Return the probabilities `[N, K]` of photos, as edges answer them: by the heads of their groups."""
        outputs = self.model.predict([photo.image for photo in photos])
        if self.heads is None:
            return outputs["probabilities"]
        return answer_by_groups(
            self.heads.by_group,
            [photo.group for photo in photos],
            outputs["probabilities"].astype(np.float64),
            outputs["embedding"],
        )


class PairedModels(NamedTuple):
    """Champion and challenger."""

    champion: Contestant
    challenger: Contestant

    def answer(self, photos: Sequence[Example]) -> PairedPredictions | None:
        """Run both on photos; None without photos."""
        if not photos:
            return None
        classes = _with_labels(self.challenger.classes, photos)
        champion, challenger = (_by_class(one.probabilities(photos), one.classes, classes) for one in self)
        weights = np.array([photo.weight for photo in photos])
        return PairedPredictions(champion, challenger, label_indices(photos, classes), weights)

    def compare_answered(self, held_out: HeldOutAnswers) -> PairedPredictions | None:
        """Run the champion on photos that the challenger has answered; None without photos."""
        photos = held_out.photos
        if not photos:
            return None
        classes = _with_labels(self.challenger.classes, photos)
        return PairedPredictions(
            _by_class(self.champion.probabilities(photos), self.champion.classes, classes),
            _by_class(held_out.probabilities, self.challenger.classes, classes),
            label_indices(photos, classes),
            np.ones(len(photos)),
        )


def _by_class(probabilities: NDArray[np.floating], of: Sequence[str], classes: Sequence[str]) -> Floats:
    """Reorder columns to other classes; a class that a version does not know has probability 0.

    Columns of one name are added: these classes were merged.
    """
    columns = [[at for at, known in enumerate(of) if known == name] for name in classes]
    return np.stack([probabilities[:, at].sum(axis=1) for at in columns], axis=1).astype(np.float64)


def _latency_ratio(before: SavedModel, after: SavedModel, photo: bytes) -> float:
    """Return the median time per photo of the second model, relative to the first."""
    # Alternating calls: a load on the machine affects both. The first call of each only warms up.
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + _TIMED_CALLS):
        for model, times in zip((before, after), took, strict=True):
            began = time.perf_counter()
            model.predict([photo])
            times.append(time.perf_counter() - began)
    first, second = (median(times[1:]) for times in took)
    return second / first
