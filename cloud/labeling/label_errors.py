"""Find labels that are probably wrong, by confident learning on out-of-fold votes."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from cloud.dataset.example import Example, Source, label_indices
from cloud.labeling.embedder import Embedder
from cloud.labeling.ensemble import out_of_fold_votes
from cloud.modeling.arrays import Floats, Ints
from cloud.progress import Progress


class LabelError(msgspec.Struct, frozen=True):
    """A label that is probably wrong.

    Attributes:
        photo_id: of the photo.
        label: its label.
        source: who gave the label.
        suggestion: the most probable class.
        self_confidence: probability of the label, in [0, 1], by models that were trained without the photo.
    """

    photo_id: str
    label: str
    source: Source
    suggestion: str = msgspec.field(name="likely")
    self_confidence: float = msgspec.field(name="credibility")


def find_label_errors(
    examples: Sequence[Example], backbone: str, cache_dir: Path, *, seed: int, progress: Progress
) -> list[LabelError]:
    """Return the labels that are probably wrong, lowest self-confidence first.

    Each photo is judged by an ensemble that was fitted without it; the only photo of a class cannot be.

    Args:
        examples: all labelled photos; gold photos may be among them, because the ensembles are discarded.
        backbone: one with pretrained weights.
        cache_dir: caches embeddings between runs.
        seed: seeds the folds.
        progress: shows the embedding of photos.

    Raises:
        BackboneUnavailableError: the name is not a backbone, or its pretrained weights are not available.
        TrainingError: a photo cannot be decoded.
    """
    classes = sorted({example.label for example in examples})
    if len(classes) < 2:  # noqa: PLR2004 - with one class no label can be another
        return []
    indices = label_indices(examples, classes)
    embeddings = [Embedder.open(backbone, cache_dir).embed(examples, progress)]
    held_out = out_of_fold_votes(embeddings, indices, len(classes), seed=seed)
    if held_out is None:
        return []
    positions, votes = held_out
    probabilities, given = votes.probabilities, indices[positions]
    return [
        LabelError(
            examples[positions[row]].photo_id,
            classes[given[row]],
            examples[positions[row]].source,
            classes[votes.labels[row]],
            float(probabilities[row, given[row]]),
        )
        for row in rank_label_issues(given, probabilities)
    ]


def rank_label_issues(labels: Ints, probabilities: Floats) -> list[int]:
    """Return the rows whose label is probably wrong, lowest self-confidence first.

    Args:
        labels: `[N]`, in [0, K).
        probabilities: `[N, K]`, out of fold.

    Source: Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels (2021),
    as implemented by cleanlab.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415 - it imports pandas
    from sklearn.preprocessing import normalize  # noqa: PLC0415 - as above

    # cleanlab finds other issues if a class has no label, so such classes are left out.
    present, renumbered = np.unique(labels, return_inverse=True)
    if len(present) < 2:  # noqa: PLR2004 - as above
        return []
    found = find_label_issues(
        renumbered,
        normalize(probabilities[:, present], norm="l1"),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [int(row) for row in found]
