"""Which labels are likely wrong: what people and models said, held against what the photos look like."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from cloud.dataset.example import Example, Source, label_numbers
from cloud.labeling.embedder import Eye
from cloud.labeling.ensemble import held_out
from cloud.modeling.arrays import Floats, Ints
from cloud.progress import Progress


class Doubt(msgspec.Struct, frozen=True):
    """A label that is likely wrong.

    Attributes:
        photo_id: of the photo.
        label: what it is called.
        source: who said so.
        likely: what it looks like.
        credibility: probability of its label, in [0, 1], by models that have not seen it.
    """

    photo_id: str
    label: str
    source: Source
    likely: str
    credibility: float


def doubts(
    examples: Sequence[Example], backbone: str, cache_dir: Path, *, seed: int, progress: Progress
) -> list[Doubt]:
    """Name the labels that are likely wrong, the least credible first.

    Each photo is judged by an ensemble that was trained without it; a class's only photo cannot be.

    Args:
        examples: all that is labelled; gold photos may be among them, nothing that is trained here is kept.
        backbone: whose embeddings are looked at; one with weights of its own.
        cache_dir: keeps embeddings from run to run.
        seed: decides the folds.
        progress: told about every step of more than two seconds.

    Raises:
        BackboneUnavailableError: no backbone has that name, or it has no pretrained weights here.
        TrainingError: a photo cannot be decoded.
    """
    classes = sorted({example.label for example in examples})
    if len(classes) < 2:  # noqa: PLR2004 - with one name for all, none can be another
        return []
    numbers = label_numbers(examples, classes)
    judged = held_out(
        [Eye.open(backbone, cache_dir).look(examples, progress)], numbers, len(classes), seed=seed
    )
    if judged is None:
        return []
    positions, opinions = judged
    probabilities, said = opinions.probabilities, numbers[positions]
    return [
        Doubt(
            examples[positions[row]].photo_id,
            classes[said[row]],
            examples[positions[row]].source,
            classes[opinions.labels[row]],
            float(probabilities[row, said[row]]),
        )
        for row in issues(said, probabilities)
    ]


def issues(labels: Ints, probabilities: Floats) -> list[int]:
    """Find the rows whose label is likely wrong, the least credible first.

    Args:
        labels: `[N]`, in [0, K).
        probabilities: `[N, K]`, out of fold.

    Source: Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels (2021),
    by cleanlab: photos are pruned by the rates at which classes are taken for each other.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415 - with it come scikit-learn and pandas

    present, numbers = np.unique(labels, return_inverse=True)
    if len(present) < 2:  # noqa: PLR2004 - as above
        return []
    among = probabilities[:, present]
    found = find_label_issues(
        numbers,
        among / among.sum(axis=1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [int(row) for row in found]
