"""Run the teacher over the samples that nobody has labelled, and store what it is sure of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from bus.mqtt.presence import now_ms
from cloud.dataset.example import (
    AUDIT_LANE,
    HARD_LANE,
    TEACHER_LABELS,
    Example,
    class_names,
    label_numbers,
    waiting_classes,
)
from cloud.dataset.store import NAMED, PHOTOS, Label, Store, Withdrawal
from cloud.dataset.training_set import examples
from cloud.labeling.embedder import Eye
from cloud.labeling.ensemble import HEADS, Ensemble, fit_ensemble, held_out, sure_by_lane
from cloud.modeling.arrays import Ints
from cloud.progress import Progress, Silent

BATCH_PHOTOS = 256
_NO_AUDIT = f"(lane IS NULL OR lane != '{AUDIT_LANE}')"


@dataclass(frozen=True, slots=True)
class Teacher:
    """Somebody who may label samples.

    Attributes:
        by: who it is: `teacher/` and a digest of all that it is made of.
        classes: in the order of the probabilities.
        eyes: its networks.
        ensemble: its heads.
        thresholds: how sure it has to be, as `cloud.labeling.ensemble.sure_by_lane` has it.
    """

    by: str
    classes: tuple[str, ...]
    eyes: tuple[Eye, ...]
    ensemble: Ensemble
    thresholds: tuple[float, float]

    def labels(self, photos: Sequence[Example], progress: Progress) -> dict[str, str]:
        """Return labels by photo id, of those photos of which it is sure."""
        if not np.isfinite(self.thresholds).any():
            return {}
        opinions = self.ensemble.opinions([eye.look(photos, progress) for eye in self.eyes])
        sure = np.flatnonzero(opinions.sureness >= np.array(self.thresholds)[_are_hard(photos)])
        return {photos[int(place)].photo_id: self.classes[opinions.labels[place]] for place in sure}


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of a run.

    Attributes:
        by: the teacher; None if there are too few human labels of samples for one.
        thresholds: how sure it had to be, of most photos and in lane hard; None without a teacher.
        looked_at: samples without a label of a person or of this teacher.
        labelled: how many of them it labelled; those that an earlier teacher called the same do not count.
        withdrawn: from how many it took an earlier teacher's label, without one of its own.
    """

    by: str | None = None
    thresholds: tuple[float, float] | None = None
    looked_at: int = 0
    labelled: int = 0
    withdrawn: int = 0


def teach(
    store: Store,
    backbones: Sequence[str],
    cache_dir: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Taught:
    """Make a teacher from people's labels, and let it label what it is sure of.

    Photos of the gold set and of the lane `audit` are left to people, and teach nobody: they judge what is
    trained on this teacher's labels. An earlier teacher's label stays where this one is sure of the same (to
    write it again would cost the image's bytes), is corrected where it is sure of another, and is taken back
    where it is sure of none.

    Args:
        store: the dataset.
        backbones: names of its networks, at least one; each with weights of its own.
        cache_dir: keeps embeddings from run to run.
        seed: of every random decision.
        progress: told about every step of more than two seconds.

    Raises:
        BackboneUnavailableError: no backbone has one of the names, or it has no pretrained weights here.
        TrainingError: a photo cannot be decoded, or people know fewer than two classes.
        TransientError: the dataset cannot be written now; what was labelled before stays.
    """
    progress = progress or Silent()
    teacher = make_teacher(store, backbones, cache_dir, seed=seed, progress=progress)
    if teacher is None:
        return Taught()
    looked_at = labelled = withdrawn = 0
    for photos in _unlabelled(store, teacher.by):
        before = {photo.photo_id: photo.label for photo in photos if photo.label}
        sure = teacher.labels(photos, progress)
        changed, silent = sure.items() - before.items(), before.keys() - sure.keys()
        by, at_ms = teacher.by, now_ms()
        labels = [
            Label(photo_id=photo_id, label=label, by=by, at_ms=at_ms, judge="teacher")
            for photo_id, label in changed
        ]
        store.label([*labels, *(Withdrawal(photo_id=photo_id, by=by, at_ms=at_ms) for photo_id in silent)])
        looked_at, labelled = looked_at + len(photos), labelled + len(changed)
        withdrawn += len(silent)
    return Taught(teacher.by, teacher.thresholds, looked_at, labelled, withdrawn)


def make_teacher(
    store: Store, backbones: Sequence[str], cache_dir: Path, *, seed: int, progress: Progress
) -> Teacher | None:
    """Make a teacher, which may be sure of nothing; None if people labelled too few samples to judge one.

    Raises as `teach` does.
    """
    said = examples(store, where=f"{NAMED} AND {_NO_AUDIT}")
    waiting = waiting_classes(said)
    people = [example for example in said if example.label not in waiting]
    classes = class_names(people)
    numbers = label_numbers(people, classes)
    eyes = tuple(Eye.open(name, cache_dir) for name in backbones)
    sights = [eye.look(people, progress) for eye in eyes]
    judged = held_out(sights, numbers, len(classes), seed=seed)
    if judged is None:
        return None
    positions, opinions = judged
    right, hard = opinions.labels == numbers[positions], _are_hard(people)[positions].astype(bool)
    sampled = np.array([example.sampled for example in people])[positions]
    if sampled.sum() < TEACHER_LABELS:
        return None
    thresholds = sure_by_lane(opinions.sureness, right, sampled, hard)
    ensemble = fit_ensemble(sights, numbers, len(classes), seed=seed)
    made_of = [f"{example.photo_id} {example.label}" for example in people]
    made_of += [*(eye.digest for eye in eyes), f"{HEADS} {seed} {thresholds}"]
    digest = blake2b("\n".join(made_of).encode(), digest_size=6).hexdigest()
    return Teacher(f"teacher/{digest}", classes, eyes, ensemble, thresholds)


def _are_hard(photos: Sequence[Example]) -> Ints:
    """Tell of photos whether they came by the lane hard, as 0 or 1: `[N]`."""
    return np.array([photo.lane == HARD_LANE for photo in photos], np.int64)


def _unlabelled(store: Store, by: str) -> Iterator[list[Example]]:
    """Yield, in batches, the samples that a teacher may label and has not; with an earlier one's label."""
    where = (
        f"{PHOTOS} AND origin = 'sample' AND split != 'gold' AND human_label IS NULL"
        f" AND {_NO_AUDIT} AND (teacher_by IS NULL OR teacher_by != '{by}')"
    )
    ids = sorted(str(row["photo_id"]) for row in store.scan(["photo_id"], where=where))
    for start in range(0, len(ids), BATCH_PHOTOS):
        found = store.find(ids[start : start + BATCH_PHOTOS], ["image", "lane", "teacher_label"])
        yield [
            Example(key, row["image"], str(row["teacher_label"] or ""), "teacher", lane=str(row["lane"]))  # type: ignore[arg-type]  # an image is bytes
            for key, row in found.items()
        ]
