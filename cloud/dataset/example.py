"""What training consumes: labelled photos, wherever they come from."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cloud.modeling.arrays import Ints
from schemas.errors import PermanentError
from schemas.messages import NEITHER

Source = Literal["human", "teacher", "edge"]
AUTO_LANE = "auto"
"""The lane of photos whose label the edge's model was sure of."""
HARD_LANE = "hard"
"""The lane of photos of which it was not."""
AUDIT_LANE = "audit"
"""The lane of photos that were drawn at random: they judge, and teach only once they have judged."""
FEWEST_LABELS = 3
"""Human labels from which on a class is learned beside others that have as many."""
TEACHER_LABELS = 24
"""Human labels of samples from which on a teacher can be judged, if all are as it says."""


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
    """

    photo_id: str
    image: bytes
    label: str
    source: Source
    weight: float = 1.0
    lane: str | None = None

    @property
    def human(self) -> bool:
        """True if a person gave the label."""
        return self.source == "human"

    @property
    def sampled(self) -> bool:
        """True if a camera of the fleet took it, and an edge harvested it."""
        return self.lane is not None

    @property
    def auto(self) -> bool:
        """True if it is there only because the edge's model was sure of its label."""
        return self.source == "edge" or (self.lane == AUTO_LANE and not self.human)

    @property
    def content(self) -> bytes:
        """128-bit BLAKE2b of the image, the same whatever id the photo got on its way."""
        return hashlib.blake2b(self.image, digest_size=16).digest()


def waiting_classes(examples: Sequence[Example], gold: Sequence[Example] = ()) -> dict[str, int]:
    """Return the classes that have to wait for more labels, and how many human labels each has.

    Classes weigh the same in a training, so that one slip of the pen would count as much as all photos of
    another class. Nothing waits until two classes have enough: everybody begins with few.

    Args:
        examples: what could be trained from.
        gold: what could be measured on; its labels teach nothing.
    """
    counts = Counter({photo.label: 0 for photo in (*examples, *gold)})
    counts.update(example.label for example in examples if example.human)
    enough = [label for label, count in counts.items() if count >= FEWEST_LABELS]
    return {} if len(enough) < 2 else {label: counts[label] for label in counts.keys() - enough}  # noqa: PLR2004 - a choice needs two


def by_content(examples: Iterable[Example]) -> list[Example]:
    """Order examples so that the same photos with the same labels always come in the same order."""
    return sorted(examples, key=lambda example: (example.content, example.label, example.source))


def class_names(examples: Sequence[Example], wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Decide the classes of a model, in the order of its outputs.

    Args:
        examples: what it is trained from.
        wanted: the classes in a given order; by default those of the labels, sorted.

    Returns:
        At least two distinct names, each with at least one human label: what only models have
        called by a name, nobody has ever seen to be one.

    Raises:
        TrainingError: that cannot be had, or an example is labelled with another class.
    """
    names = tuple(wanted) if wanted is not None else tuple(sorted({e.label for e in examples}))
    if len(set(names)) != len(names) or len(names) < 2:  # noqa: PLR2004 - a choice needs two
        raise TrainingError(f"classes: expected at least two distinct names, got {list(names)}")
    for name in names:
        if name == NEITHER:
            raise TrainingError(f"class {name!r}: expected a class, got the word for none of them")
        if name.splitlines() != [name] or not name.strip():
            raise TrainingError(f"class {name!r}: expected a name on one line")
        if not any(e.human and e.label == name for e in examples):
            raise TrainingError(f"class {name!r}: expected at least one human label, got none")
    for example in examples:
        if example.label not in names:
            raise TrainingError(
                f"photo {example.photo_id}: expected a label of {list(names)}, got {example.label!r}"
            )
        if not example.weight > 0:
            raise TrainingError(f"photo {example.photo_id}: expected a weight above 0, got {example.weight}")
    return names


def label_numbers(examples: Sequence[Example], classes: Sequence[str]) -> Ints:
    """Return the position of each example's label among the classes: `[N]`."""
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[example.label] for example in examples], np.int64)
