"""Audited photos: SQL filters, the audit slice that evaluates new versions, and versions' answers to them.

The audit slice is a random sample of recent camera photos with human labels. It is kept out of trainings
while it evaluates challengers of one champion. Photos received before the next promotion are then trained on
like any other labelled photo.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import msgspec
from msgspec import Struct, structs

from cloud.dataset.damage import Damage, scan_undamaged
from cloud.dataset.example import MIN_CLASS_LABELS, Example
from cloud.dataset.rows.typed_rows import typed_rows
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from cloud.dataset.training_set import device_groups
from cloud.evaluation.audit_stats import sampling_weight
from schemas import lanes
from schemas.class_names import NEITHER, ClassNameError, class_name
from schemas.groups.membership import NO_GROUP

_DRAWN = f"{HAS_IMAGE} AND lane = '{lanes.AUDIT}' AND split != 'gold'"
_ANSWERED = "edge_label IS NOT NULL AND model_version IS NOT NULL"
AUDITED = f"{_DRAWN} AND {HAS_HUMAN_CLASS}"
"""SQL filter: randomly sampled, human-labelled, not in gold; its weight is `sampling_weight(inclusion)`."""
AUDITED_WITH_ANSWER = f"{AUDITED} AND {_ANSWERED}"
"""SQL filter: audited, and answered by a known model version."""
NEITHER_WITH_ANSWER = f"{_DRAWN} AND {_ANSWERED} AND human_label = '{NEITHER}'"
"""SQL filter: randomly sampled, answered, and labelled as none of the classes: no answer is correct."""


def audit_slice(store: Store, unseen: Collection[str], *, version: int | str | None = None) -> list[Example]:
    """Read the audited photos that a new version is evaluated on besides the gold set.

    Args:
        store: The dataset.
        unseen: Ids of the photos that the champion cannot have been trained on (`unseen_photos`).
        version: Number or tag of the dataset's version; None for the newest.

    Returns:
        Examples in the order of their ids, weighted by `sampling_weight`.
    """
    if not unseen:
        return []
    rows = scan_undamaged(store.table, _AuditRow.__struct_fields__, where=AUDITED, version=version)
    groups = device_groups(store, version)
    drawn = [photo for row in rows if (photo := _audit_row(row)) is not None and photo.photo_id in unseen]
    return [
        Example(
            photo.photo_id,
            photo.image,
            photo.human_label,
            "human",
            sampling_weight(photo.inclusion),
            lanes.AUDIT,
            group=groups.get((photo.node or "", photo.device or ""), NO_GROUP),
        )
        # A scan has no defined order, and the bootstrap of the gate depends on it.
        for photo in sorted(drawn, key=lambda photo: photo.photo_id)
    ]


class _AuditRow(Struct, frozen=True):
    """Columns of a photo in the audit slice."""

    photo_id: str
    image: bytes
    human_label: str
    inclusion: float | None
    node: str | None
    device: str | None


def _audit_row(row: dict[str, object] | Damage) -> _AuditRow | None:
    """Return a row with its class name, None if it cannot be used; a training counts such rows."""
    if isinstance(row, Damage):
        return None
    try:
        photo = msgspec.convert(row, _AuditRow)
        return structs.replace(photo, human_label=class_name(photo.human_label))
    except (msgspec.ValidationError, ClassNameError):
        return None


class AuditedAnswer(Struct, frozen=True):
    """A version's label and the human label of one audited photo."""

    photo_id: str
    model_version: int
    edge_label: str
    human_label: str
    inclusion: float | None

    @property
    def outcome(self) -> tuple[bool, float]:
        """Whether the version was correct, and the photo's sampling weight."""
        return self.edge_label == self.human_label, sampling_weight(self.inclusion)


def audited_answers(store: Store, condition: str = "TRUE") -> Iterator[AuditedAnswer]:
    """Read the answers of versions in service to audited photos.

    Args:
        store: The dataset.
        condition: SQL filter on the photos; all by default.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    where = f"{AUDITED_WITH_ANSWER} AND ({condition})"
    yield from typed_rows(store.scan(AuditedAnswer.__struct_fields__, where=where), AuditedAnswer)


def hold_out_audit(
    examples: Sequence[Example], audit: Sequence[Example], near: Collection[str] = ()
) -> tuple[list[Example], list[Example]]:
    """Split the audit slice off from what a training may use.

    Args:
        examples: Everything that could be trained on, the slice's photos among them.
        audit: The slice.
        near: Ids of examples that show the same as a photo of the slice: both cannot be used.

    Returns:
        Training examples and evaluation examples, without a photo in common. Photos of a class that has fewer
        than `MIN_CLASS_LABELS` human labels besides the slice are training examples.
    """
    # Compared by content: one image may be stored under several ids.
    fresh = {photo.image for photo in audit}
    others = Counter(
        one.label for one in examples if one.human and one.image not in fresh and one.photo_id not in near
    )
    # Without this exception no version could ever learn a class that is mostly seen in the audit lane: it
    # would wait for labels that the slice has.
    evaluation = [photo for photo in audit if others[photo.label] >= MIN_CLASS_LABELS]
    fresh = {photo.image for photo in evaluation}
    return [one for one in examples if one.image not in fresh], evaluation


class AuditedPhoto(Struct, frozen=True):
    """A photo of the audit lane with the model's label and scores and the human label; None is unknown."""

    edge_label: str
    human_label: str
    confidence: float | None
    inclusion: float | None
    margin: float | None = None
    entropy: float | None = None
    novelty: float | None = None
