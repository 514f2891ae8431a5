"""Judge labels by confident learning on out-of-fold votes: plain functions, without TensorFlow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cloud.dataset.example import Source
from cloud.modeling.arrays import Floats, Ints
from cloud.progress import Progress

if TYPE_CHECKING:
    from cloud.labeling.ensemble import Embeddings


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


class LabelledPhoto(msgspec.Struct, frozen=True):
    """A photo with the label to judge.

    Attributes:
        photo_id: its id.
        label: its label.
        source: who gave the label.
    """

    photo_id: str
    label: str
    source: Source


def judge_labels(
    photos: Sequence[LabelledPhoto],
    embeddings: "Embeddings",
    *,
    seed: int,
    groups: Ints | None = None,
    progress: Progress | None = None,
) -> list[LabelError]:
    """Return the labels that are probably wrong, lowest self-confidence first.

    Each photo is judged by an ensemble that was fitted without it; the only photo of a class cannot be.
    The order of the photos does not matter.

    Args:
        photos: N photos.
        embeddings: theirs, `[V, N, D]`.
        seed: seeds the folds.
        groups: `[N]`, numbers of the groups of near-duplicates: one with the same wrong label would hide it.
        progress: advances by folds.
    """
    # It loads scikit-learn, which takes a second: otherwise the console would wait for it at its start.
    from cloud.labeling.ensemble import out_of_fold_votes  # noqa: PLC0415

    classes = sorted({photo.label for photo in photos})
    if len(classes) < 2:  # noqa: PLR2004 - with one class no label can be another
        return []
    # The folds are drawn by position: a label that is given later must not change the judgement of others.
    order = sorted(range(len(photos)), key=lambda row: photos[row].photo_id)
    photos = [photos[row] for row in order]
    position = {name: number for number, name in enumerate(classes)}
    indices = np.array([position[photo.label] for photo in photos], np.int64)
    held_out = out_of_fold_votes(
        [embeddings[:, order]],
        indices,
        len(classes),
        seed=seed,
        groups=None if groups is None else groups[order],
        progress=progress,
    )
    if held_out is None:
        return []
    positions, votes = held_out
    probabilities, given = votes.probabilities, indices[positions]
    return [
        LabelError(
            photos[positions[row]].photo_id,
            classes[given[row]],
            photos[positions[row]].source,
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
