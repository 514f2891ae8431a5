"""Labelled photos as training and evaluation read them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas import lanes
from schemas.class_names import NEITHER
from schemas.codec import content_id
from schemas.errors import PermanentError
from schemas.groups.membership import NO_GROUP

Source = Literal["human", "device", "teacher", "edge"]
EQUALS_GOLD = "the picture equals a gold photo"
"""Reason of a photo that is left out of training because it would be praised for its memory."""
_MIN_OVERLAP, _OVERLAP_SHARE = 10, 0.2
MIN_CLASSES = 2
"""Classes that a classifier needs."""
MIN_CLASS_LABELS = 3
"""Human labels that a class needs before it is trained, once two classes have as many."""
_MORE_CLASSES = "import photos with 'gleaner cloud import DIR', or label some with 'gleaner cloud review'"
_NAME_CLASSES = "'gleaner cloud list --classes' lists those of the dataset"
MIN_TEACHER_LABELS = 24
"""Human labels of samples that are needed to measure a teacher's precision, if it gets all of them right."""


class TrainingError(PermanentError):
    """The examples do not allow a training; the message names the class or the photo_id."""


@dataclass(frozen=True, slots=True)
class Example:
    """A photo with the label that training uses.

    Attributes:
        photo_id: 32 hex digits.
        image: the encoded JPEG or PNG.
        label: the class name.
        source: who gave the label; photos of an imported folder count as "human".
        weight: relative to other examples of its source, above 0.
        lane: why the edge harvested it; None for imported photos.
        file: what it was imported from, for messages; None for a sample.
        group: of the device that took it, as of its newest sample; empty for none and for imported photos.
    """

    photo_id: str
    image: bytes
    label: str
    source: Source
    weight: float = 1.0
    lane: str | None = None
    file: str | None = None
    group: str = NO_GROUP

    @property
    def human(self) -> bool:
        """True for a human label."""
        return self.source == "human"

    @property
    def sampled(self) -> bool:
        """True if it was harvested by an edge, not imported."""
        return self.lane is not None

    @property
    def auto(self) -> bool:
        """True if it is in the training set only because the edge's model was confident of its label."""
        return self.source == "edge" or (self.lane == lanes.AUTO and not self.human)

    @property
    def content_id(self) -> str:
        """Digest of the image, 32 hex digits; equal for equal images with different photo ids."""
        return content_id(self.image)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that a training does not use.

    Attributes:
        photo_id: 32 hex digits; None for the rows of a data file that cannot be read.
        reason: why, the same words for all of its kind; counted on the card.
        detail: what is special about this one.
        file: what the photo was imported from; None for a sample.
        count: how many rows.
    """

    photo_id: str | None
    reason: str
    detail: str = ""
    file: str | None = None
    count: int = 1

    @classmethod
    def of(cls, photo: Example, reason: str, detail: str = "") -> "LeftOut":
        """Return the entry of an example."""
        return cls(photo.photo_id, reason, detail, photo.file)

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.file, self.photo_id))) or f"{self.count} rows"
        return f"{what}: {self.reason}" + (f": {self.detail}" if self.detail else "")


def count_reasons(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Count rows by reason, most frequent first."""
    counts = Counter[str]()
    for one in left_out:
        counts[one.reason] += one.count
    return dict(counts.most_common())


def gold_overlap(usable: Sequence[Example], left_out: Iterable[LeftOut]) -> str | None:
    """Return a warning if many labelled photos are lost to training because they equal gold photos.

    So it is with a fixed camera whose gold photos were drawn at random from what it saw.

    Args:
        usable: photos to train on.
        left_out: the others, with the reason.
    """
    equal = count_reasons(left_out).get(EQUALS_GOLD, 0)
    total = equal + sum(photo.human for photo in usable)
    if equal < _MIN_OVERLAP or equal < _OVERLAP_SHARE * total:
        return None
    return (
        f"{equal} of {total} labelled photos equal a gold photo and are not trained on,"
        " as with a fixed camera whose gold photos were drawn at random;"
        " import them into a new dataset with 'gleaner cloud import DIR --hold-out 20%',"
        " which keeps similar ones on one side,"
        " or take gold photos of other days"
    )


def classes_below_minimum(examples: Sequence[Example], gold: Sequence[Example] = ()) -> dict[str, int]:
    """Return the classes with fewer than `MIN_CLASS_LABELS` human labels, each with its count.

    Empty until two classes reach the minimum, so that the first training starts from few labels.

    Args:
        examples: candidates for training.
        gold: examples of the gold set; their labels are not trained on and do not count.
    """
    counts = Counter({photo.label: 0 for photo in (*examples, *gold)})
    # Classes are balanced in training, so a single mislabelled photo could define a class.
    counts.update(example.label for example in examples if example.human)
    enough = [label for label, count in counts.items() if count >= MIN_CLASS_LABELS]
    return {} if len(enough) < MIN_CLASSES else {label: counts[label] for label in counts.keys() - enough}


def sorted_by_content(examples: Iterable[Example]) -> list[Example]:
    """Sort examples by image, label and source, so that equal sets train equal models."""
    # Not by photo_id: an agent draws it at random, so the same photos sent again would be in another order.
    return sorted(examples, key=lambda example: (example.content_id, example.label, example.source))


def check_two_classes(names: Sequence[str]) -> None:
    """Raise if there are too few classes for a training.

    Args:
        names: distinct labels.

    Raises:
        TrainingError: With what to do.
    """
    if len(names) < MIN_CLASSES:
        raise TrainingError(
            f"cannot train with {_counted(names)}; at least two classes are needed",
            hint=_MORE_CLASSES,
        )


def class_names(examples: Sequence[Example], wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Choose and check the classes of a model, in the order of its outputs.

    Args:
        examples: the training set.
        wanted: the classes in a given order; by default the labels, sorted.

    Returns:
        At least two distinct names, each with at least one human label.

    Raises:
        TrainingError: fewer than two classes, an unusable name, a class without a human label, an example
            of another class, or a weight of 0 or less.
    """
    names = tuple(wanted) if wanted is not None else tuple(sorted({e.label for e in examples}))
    if wanted is None:
        check_two_classes(names)
    elif len(set(names)) != len(names) or len(names) < MIN_CLASSES:
        raise TrainingError(
            f"classes: expected at least two distinct names, got {list(names)}", hint=_NAME_CLASSES
        )
    for name in names:
        if name == NEITHER:
            raise TrainingError(f"class {name!r}: reserved for photos of no class")
        # classes.txt in the bundle has one name per line; splitlines() also splits at separators like U+2028.
        if name.splitlines() != [name] or not name.strip():
            raise TrainingError(f"class {name!r}: expected a name on one line")
        # A class that only models have named has never been confirmed by anybody.
        if not any(e.human and e.label == name for e in examples):
            raise TrainingError(f"class {name!r}: no human label; label a photo with 'gleaner cloud review'")
    for example in examples:
        if example.label not in names:
            raise TrainingError(
                f"photo {example.photo_id}: expected a label of {list(names)}, got {example.label!r}"
            )
        if not example.weight > 0:
            raise TrainingError(f"photo {example.photo_id}: expected a weight above 0, got {example.weight}")
    return names


def _counted(names: Sequence[str]) -> str:
    return f"one class, {names[0]!r}" if names else "no labelled photos"


def label_indices(examples: Sequence[Example], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each example's label in `classes`: `[N]`."""
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[example.label] for example in examples], np.int64)
