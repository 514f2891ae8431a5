"""What an audited photo is; and the fresh audit slice, which judges and is not trained on.

The slice is a random sample of what the cameras see now. It is kept out of every training that it judges, and
so for as long as one champion stays. Once another takes its place, the photos that were received before are
trained on like any that a person labelled.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from cloud.dataset.example import Example
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from cloud.evaluation.audit_stats import weight_of
from schemas import lanes
from schemas.messages import NEITHER

_DRAWN = f"{HAS_IMAGE} AND lane = '{lanes.AUDIT}' AND split != 'gold'"
_BY_A_VERSION = "edge_label IS NOT NULL AND model_version IS NOT NULL"
AUDITED = f"{_DRAWN} AND {HAS_HUMAN_CLASS}"
"""Condition of an audited photo: drawn by lot, named by a person, not gold; it weighs `weight_of` it."""
ANSWERED = f"{AUDITED} AND {_BY_A_VERSION}"
"""Condition of an audited photo that tells whether the version was right that answered it."""
NEITHER_ANSWERED = f"{_DRAWN} AND {_BY_A_VERSION} AND human_label = '{NEITHER}'"
"""Condition of a photo that was drawn, answered, and shows none of the classes: no answer can be right."""


def audit_slice(store: Store, since_ms: int, *, version: int | str | None = None) -> list[Example]:
    """Read what a new version is judged on beside the gold set: a random sample of what the cameras see now.

    Args:
        store: The dataset.
        since_ms: When the champion was trained, UTC: what was received later, it cannot have seen.
        version: Number or tag; None for the newest.

    Returns:
        Audited photos; each weighs as many photos as it stands for.
    """
    where = f"{AUDITED} AND received_at_ms > {since_ms}"
    rows = store.scan(_Audited.__struct_fields__, where=where, version=version)
    drawn = [msgspec.convert(row, _Audited) for row in rows]
    return [
        Example(
            photo.photo_id,
            photo.image,
            photo.human_label,
            "human",
            weight_of(photo.inclusion),
            lanes.AUDIT,
        )
        for photo in sorted(drawn, key=lambda photo: photo.photo_id)
    ]


class _Audited(msgspec.Struct, frozen=True):
    """The columns that a photo of the audit slice is made of."""

    photo_id: str
    image: bytes
    human_label: str
    inclusion: float | None


class Answer(msgspec.Struct, frozen=True):
    """What a version and a person say of an audited photo."""

    photo_id: str
    model_version: int
    edge_label: str
    human_label: str
    inclusion: float | None

    @property
    def judged(self) -> tuple[bool, float]:
        """Whether the version was right, and how many photos this one stands for."""
        return self.edge_label == self.human_label, weight_of(self.inclusion)


def answers(store: Store, condition: str = "TRUE") -> Iterator[Answer]:
    """Read what versions in service answered to audited photos.

    Args:
        store: The dataset.
        condition: Which of them, in SQL.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    for row in store.scan(Answer.__struct_fields__, where=f"{ANSWERED} AND ({condition})"):
        yield msgspec.convert(row, Answer)


def hold_back(examples: Sequence[Example], audit: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Keep the fresh audit slice out of a training.

    Photos of a class that only the slice shows are trained on all the same, and judge nothing: without them
    no version would ever learn the class.

    Args:
        examples: what could be trained on, the slice's photos among them.
        audit: the slice.

    Returns:
        What to train on, and what to judge on; no photo is in both.
    """
    fresh = {photo.image for photo in audit}
    known = {one.label for one in examples if one.human and one.image not in fresh}
    judges = [photo for photo in audit if photo.label in known]
    fresh = {photo.image for photo in judges}
    return [one for one in examples if one.image not in fresh], judges


class Audited(Struct, frozen=True):
    """A photo that the lane audit drew, with what the model and a person say; None is unknown."""

    edge_label: str
    human_label: str
    confidence: float | None
    inclusion: float | None
    margin: float | None = None
    entropy: float | None = None
    novelty: float | None = None
