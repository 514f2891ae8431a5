"""Read the dataset as examples, with the label of each photo resolved: human, then teacher, then edge."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from cloud.dataset.damage import Damage, scan_undamaged
from cloud.dataset.example import Example, LeftOut, Source
from cloud.dataset.schema import Split
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from schemas import lanes
from schemas.class_names import NEITHER, ClassNameError, class_name
from schemas.errors import PermanentError
from schemas.field_types import PhotoId
from schemas.groups.membership import NO_GROUP

# Example.weight must be above 0, and an edge can report a confidence of 0.
MIN_WEIGHT = 0.01

BAD_LABEL = "the label is no class name"
DAMAGED_ROW = "the row is damaged"
DAMAGED_FILE = "the data file is damaged"

GROUP_COLUMN = "device_group"
"""Column of the group that a sample's device was in; an edge's answer is by the head of that group."""
_IN_AUTO = f"coalesce(lane, '') = '{lanes.AUTO}'"
# The edge's own label counts in lane auto only: in the other lanes the photo was harvested because the model
# was uncertain, or at random. Where edge and teacher disagree there, the photo has no label. Where there is
# no teacher's label, cloud/training/candidates/candidates.py measures whether such photos help.
HAS_LABEL = (
    f"coalesce(human_label, device_label, teacher_label, edge_label) != '{NEITHER}'"
    " AND (human_label IS NOT NULL OR device_label IS NOT NULL"
    f" OR (teacher_label IS NOT NULL AND NOT ({_IN_AUTO} AND teacher_label != coalesce(edge_label, '')))"
    f" OR (edge_label IS NOT NULL AND teacher_label IS NULL AND {_IN_AUTO}))"
)
"""SQL condition: the photo has a label that training uses."""


def resolve_label(
    human: str | None, teacher: str | None, edge: str | None, device: str | None = None
) -> tuple[str, Source] | None:
    """Return the label with the highest precedence and its source: human, device, teacher, then edge."""
    labels: tuple[tuple[str | None, Source], ...] = (
        (human, "human"),
        (device, "device"),
        (teacher, "teacher"),
        (edge, "edge"),
    )
    return next(((label, source) for label, source in labels if label is not None), None)


class Reading(NamedTuple):
    """Labelled photos, and the rows that are none although they have a label."""

    examples: list[Example]
    left_out: list[LeftOut]


def read_examples(
    store: Store, *, version: int | str | None = None, split: Split | None = None, where: str = "true"
) -> Reading:
    """Read the labelled photos for training or evaluation into memory; damaged rows are left out.

    Args:
        store: The dataset.
        version: Number or tag; None for the newest.
        split: Only this one; None for all but `gold`, which is never trained on.
        where: Further condition in SQL; other rows are not read.

    Returns:
        Examples sorted by photo id, so that one version always gives the same list. The edge's label counts
        only in lane `auto` and only if no teacher contradicts it. Photos with the human label `NEITHER`
        are left out without an entry, because no training wants them.

    Raises:
        PermanentError: The version does not exist.
        TransientError: The table cannot be read now.
    """
    groups = device_groups(store, version)
    in_split = "split != 'gold'" if split is None else f"split = '{split}'"
    rows = scan_undamaged(
        store.table,
        _Labelled.__struct_fields__,
        where=f"{HAS_IMAGE} AND {in_split} AND {HAS_LABEL} AND ({where})",
        version=version,
    )
    found: list[Example] = []
    left_out: list[LeftOut] = []
    for row in rows:
        if isinstance(row, Damage):
            detail = f"{', '.join(row.files)}: {row.reason}"
            left_out.append(LeftOut(None, DAMAGED_FILE, detail, count=row.rows))
            continue
        try:
            example = _example(row, groups)
        except (msgspec.ValidationError, PermanentError) as error:
            reason = BAD_LABEL if isinstance(error, ClassNameError) else DAMAGED_ROW
            left_out.append(LeftOut(str(row["photo_id"]), reason, str(error), _text(row["source"])))
            continue
        if example.label != NEITHER:
            found.append(example)
    return Reading(sorted(found, key=lambda example: example.photo_id), left_out)


def examples(
    store: Store, *, version: int | str | None = None, split: Split | None = None, where: str = "true"
) -> list[Example]:
    """Read the labelled photos as `read_examples` does, without those that are left out."""
    return read_examples(store, version=version, split=split, where=where).examples


def device_groups(store: Store, version: int | str | None = None) -> dict[tuple[str, str], str]:
    """Return the group of each device, by node and name: the one of its newest sample.

    So a change of a policy counts for earlier photos too. Devices without a group are left out.

    Raises:
        TransientError: The table cannot be read now.
    """
    if not store.has_column(GROUP_COLUMN, version):  # a version of the dataset from before there were groups
        return {}
    if not store.count(f"coalesce({GROUP_COLUMN}, '') != ''", version):
        return {}
    newest: dict[tuple[str, str], tuple[int, str, str]] = {}
    columns = "photo_id", "node", "device", "received_at_ms", GROUP_COLUMN
    for row in store.scan(columns, where=f"{GROUP_COLUMN} IS NOT NULL AND node IS NOT NULL", version=version):
        device = str(row["node"]), str(row["device"])
        arrived = row["received_at_ms"] or 0
        assert isinstance(arrived, int)
        found = arrived, str(row["photo_id"]), str(row[GROUP_COLUMN])
        newest[device] = max(found, newest.get(device, found))
    return {device: group for device, (_, _, group) in newest.items() if group}


def _example(row: dict[str, object], groups: Mapping[tuple[str, str], str]) -> Example:
    photo = msgspec.convert(row, _Labelled)
    edge = photo.edge_label if photo.lane == lanes.AUTO else None
    resolved = resolve_label(photo.human_label, photo.teacher_label, edge, photo.device_label)
    assert resolved is not None, "the scan returns labelled photos only"
    label, source = resolved
    # Edge labels are weighted by the model's confidence; human and teacher labels count in full.
    weight = max(MIN_WEIGHT, photo.confidence or 0.0) if source == "edge" else 1.0
    # Datasets of earlier versions have labels with line breaks and outer spaces.
    group = groups.get((photo.node or "", photo.device or ""), NO_GROUP)
    return Example(
        photo.photo_id, photo.image, class_name(label), source, weight, photo.lane, photo.source, group
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def human_classes(store: Store, version: int | None = None) -> list[str]:
    """Return the classes that people have given to photos outside the gold set, sorted; reads no image.

    Args:
        store: The dataset.
        version: Of the dataset; None for the newest.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    where = f"{HAS_IMAGE} AND human_label IS NOT NULL AND {HAS_HUMAN_CLASS} AND split != 'gold'"
    return sorted(
        {str(row["human_label"]) for row in store.scan(["human_label"], where=where, version=version)}
    )


def label_counts(store: Store) -> dict[str, int]:
    """Count human labels by class, `NEITHER` included, sorted by name."""
    rows = store.scan(["human_label"], where=f"{HAS_IMAGE} AND human_label IS NOT NULL")
    return dict(sorted(Counter(str(row["human_label"]) for row in rows).items()))


class _Labelled(msgspec.Struct, frozen=True):
    """The columns of an example."""

    photo_id: PhotoId
    image: Annotated[bytes, msgspec.Meta(min_length=1)]
    human_label: str | None
    device_label: str | None
    teacher_label: str | None
    edge_label: str | None
    lane: str | None
    confidence: float | None
    source: str | None
    node: str | None
    device: str | None
