"""Label samples with a teacher: fit it to human labels, and store the labels that it is confident of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from bus.mqtt.presence import now_ms
from cloud.dataset.example import (
    MIN_CLASSES,
    MIN_TEACHER_LABELS,
    Example,
    class_names,
    classes_below_minimum,
    label_indices,
)
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Label, Store, Withdrawal
from cloud.dataset.training_set import examples
from cloud.labeling.embedder import Embedder, decodable
from cloud.labeling.ensemble import HEADS, Ensemble, fit_ensemble, lane_thresholds, out_of_fold_votes
from cloud.labeling.last_training import ids_at_last_training
from cloud.modeling.arrays import Ints
from cloud.progress import NoProgress, Progress
from schemas import lanes

BATCH_PHOTOS = 256
NO_TEACHER = "teacher/none"
"""Name by which labels are withdrawn while there is no teacher."""
_NO_AUDIT = f"(lane IS NULL OR lane != '{lanes.AUDIT}')"
_TAUGHT = f"{HAS_IMAGE} AND origin = 'sample' AND split != 'gold' AND human_label IS NULL AND {_NO_AUDIT}"
"""Samples that a teacher labels: without a human label, and not in lane audit."""
READ_BY_TEACHER = f"({_TAUGHT}) OR ({HAS_IMAGE} AND split != 'gold' AND {HAS_HUMAN_CLASS} AND {_NO_AUDIT})"
"""SQL condition: a teacher learns from the photo or labels it."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A fitted teacher.

    Attributes:
        by: its name in labels: `teacher/` and a digest of everything that determines it.
        classes: in the order of the probabilities.
        embedders: its networks.
        ensemble: its heads.
        thresholds: minimum confidence, as `cloud.labeling.ensemble.lane_thresholds` returns it.
    """

    by: str
    classes: tuple[str, ...]
    embedders: tuple[Embedder, ...]
    ensemble: Ensemble
    thresholds: tuple[float, float]

    def labels(self, photos: Sequence[Example], progress: Progress) -> dict[str, str]:
        """Return labels by photo id, without photos that cannot be decoded or labelled with confidence."""
        if not np.isfinite(self.thresholds).any():
            return {}
        photos = decodable(photos, self.embedders, progress)
        if not photos:
            return {}
        votes = self.ensemble.votes([embedder.embed(photos, progress) for embedder in self.embedders])
        confident = np.flatnonzero(votes.confidence >= np.array(self.thresholds)[_is_hard(photos)])
        return {photos[int(row)].photo_id: self.classes[votes.labels[row]] for row in confident}


@dataclass(frozen=True, slots=True)
class TeachingResult:
    """Counts of a run.

    Attributes:
        by: the teacher's name; None if there are too few human labels for a teacher.
        thresholds: minimum confidence, of other samples and of lane hard; None without a teacher.
        examined: samples without a human label and without one by this teacher.
        labelled: samples that it labelled; those with the same label by an earlier teacher do not count.
        withdrawn: samples whose label by an earlier teacher was withdrawn, because this one abstains.
    """

    by: str | None = None
    thresholds: tuple[float, float] | None = None
    examined: int = 0
    labelled: int = 0
    withdrawn: int = 0


def teach(
    store: Store,
    backbones: Sequence[str],
    cache_dir: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> TeachingResult:
    """Fit a teacher to human labels, and store its labels of the samples without a human label.

    A label by an earlier teacher is kept where this one agrees, replaced where it is confident of another
    class, and withdrawn where it abstains. Without a teacher all of them are: nothing shows their precision.

    Args:
        store: the dataset.
        backbones: names of its networks, at least one; each with pretrained weights.
        cache_dir: caches embeddings between runs.
        seed: seeds the folds and the ensemble.
        progress: shows the embedding of photos.

    Raises:
        BackboneUnavailableError: a name is not a backbone, or its pretrained weights are not available.
        TrainingError: a photo cannot be decoded.
        TransientError: the dataset cannot be written now; the batches before are stored.
    """
    progress = progress or NoProgress()
    teacher = fit_teacher(store, backbones, cache_dir, seed=seed, progress=progress)
    if teacher is None:
        return TeachingResult(withdrawn=_withdraw_all(store))
    examined = labelled = withdrawn = 0
    for photos in _unlabelled(store, teacher.by):
        earlier = {photo.photo_id: photo.label for photo in photos if photo.label}
        labels = teacher.labels(photos, progress)
        # Equal labels are not written again: each write costs the bytes of the image.
        changed, abstained = labels.items() - earlier.items(), earlier.keys() - labels.keys()
        by, at_ms = teacher.by, now_ms()
        changes = [
            Label(photo_id=photo_id, label=label, by=by, at_ms=at_ms, annotator="teacher")
            for photo_id, label in changed
        ]
        withdrawals = [Withdrawal(photo_id=photo_id, by=by, at_ms=at_ms) for photo_id in abstained]
        store.label([*changes, *withdrawals])
        examined, labelled = examined + len(photos), labelled + len(changed)
        withdrawn += len(abstained)
    return TeachingResult(teacher.by, teacher.thresholds, examined, labelled, withdrawn)


def fit_teacher(
    store: Store, backbones: Sequence[str], cache_dir: Path, *, seed: int, progress: Progress
) -> Teacher | None:
    """Fit a teacher; None if people labelled fewer than two classes, or too few samples to measure it.

    Its thresholds can be infinite: then it abstains on every photo.

    Raises:
        BackboneUnavailableError, TrainingError: As `teach`.
    """
    # Audit photos measure models that are trained on this teacher's labels, so it must not learn from them.
    # The gold set is left out by `examples` for the same reason.
    labelled = examples(store, where=f"{HAS_HUMAN_CLASS} AND {_NO_AUDIT}")
    embedders = tuple(Embedder.open(name, cache_dir) for name in backbones)
    labelled = decodable(labelled, embedders, progress)
    rare = classes_below_minimum(labelled)
    known = [example for example in labelled if example.label not in rare]
    if len({example.label for example in known}) < MIN_CLASSES:
        return None
    classes = class_names(known)
    indices = label_indices(known, classes)
    embeddings = [embedder.embed(known, progress) for embedder in embedders]
    groups = embedders[0].groups(known, progress)
    held_out = out_of_fold_votes(
        embeddings, indices, len(classes), seed=seed, groups=groups, progress=progress
    )
    if held_out is None:
        return None
    positions, votes = held_out
    # In lane hard a teacher that was precise in earlier light is wrong first in the present one.
    earlier = ids_at_last_training(store, f"{HAS_IMAGE} AND lane = '{lanes.HARD}'")
    recent = np.array([example.photo_id not in earlier for example in known])
    correct, hard = votes.labels == indices[positions], (recent & (_is_hard(known) == 1))[positions]
    sampled = np.array([example.sampled for example in known])[positions]
    if sampled.sum() < MIN_TEACHER_LABELS:
        return None
    thresholds = lane_thresholds(votes.confidence, correct, sampled, hard)
    ensemble = fit_ensemble(embeddings, indices, len(classes), seed=seed)
    # Everything that determines its labels: an equal teacher has the same name and is not run again.
    determined_by = [f"{example.photo_id} {example.label}" for example in known]
    determined_by += [*(embedder.digest for embedder in embedders), f"{HEADS} {seed} {thresholds}"]
    determined_by += [f"{one.backbone.name} unmirrored" for one in embedders if one.flipped is None]
    digest = blake2b("\n".join(determined_by).encode(), digest_size=6).hexdigest()
    return Teacher(f"teacher/{digest}", classes, embedders, ensemble, thresholds)


def _withdraw_all(store: Store) -> int:
    """Withdraw the labels of earlier teachers, and return their number."""
    rows = store.scan(["photo_id"], where=f"{_TAUGHT} AND teacher_label IS NOT NULL")
    ids = sorted(str(row["photo_id"]) for row in rows)
    for start in range(0, len(ids), BATCH_PHOTOS):
        at_ms = now_ms()
        store.label(
            [
                Withdrawal(photo_id=photo_id, by=NO_TEACHER, at_ms=at_ms)
                for photo_id in ids[start : start + BATCH_PHOTOS]
            ]
        )
    return len(ids)


def _is_hard(photos: Sequence[Example]) -> Ints:
    """Return 1 for photos of lane hard, else 0: `[N]`."""
    return np.array([photo.lane == lanes.HARD for photo in photos], np.int64)


def _unlabelled(store: Store, by: str) -> Iterator[list[Example]]:
    """Yield, in batches, the samples without a human label and without one by this teacher.

    The label of an example is that of an earlier teacher, or empty.
    """
    where = f"{_TAUGHT} AND (teacher_by IS NULL OR teacher_by != '{by}')"
    # Sorted ids make the batches deterministic, and no scan stays open while the caller writes labels.
    ids = sorted(str(row["photo_id"]) for row in store.scan(["photo_id"], where=where))
    for start in range(0, len(ids), BATCH_PHOTOS):
        found = store.find(ids[start : start + BATCH_PHOTOS], ["image", "lane", "teacher_label"])
        yield [
            Example(key, row["image"], str(row["teacher_label"] or ""), "teacher", lane=str(row["lane"]))  # type: ignore[arg-type]  # an image is bytes
            for key, row in found.items()
        ]
