"""Read the dataset as examples, with the label of each photo resolved: human, then teacher, then edge."""

from collections import Counter

import msgspec

from cloud.dataset.example import Example, Source
from cloud.dataset.schema import Split
from cloud.dataset.store import HAS_IMAGE, Store
from schemas import lanes
from schemas.messages import NEITHER

# Example.weight must be above 0, and an edge can report a confidence of 0.
MIN_WEIGHT = 0.01

_IN_AUTO = f"coalesce(lane, '') = '{lanes.AUTO}'"
# The edge's own label counts in lane auto only: in the other lanes the photo was harvested because the model
# was uncertain, or at random. Where edge and teacher disagree there, the photo has no label. Where there is
# no teacher's label, cloud/training/candidates.py measures whether such photos help.
_HAS_LABEL = (
    f"coalesce(human_label, teacher_label, edge_label) != '{NEITHER}' AND (human_label IS NOT NULL"
    f" OR (teacher_label IS NOT NULL AND NOT ({_IN_AUTO} AND teacher_label != coalesce(edge_label, '')))"
    f" OR (edge_label IS NOT NULL AND teacher_label IS NULL AND {_IN_AUTO}))"
)


def resolve_label(human: str | None, teacher: str | None, edge: str | None) -> tuple[str, Source] | None:
    """Return the label with the highest precedence and its source: human, then teacher, then edge."""
    labels: tuple[tuple[str | None, Source], ...] = ((human, "human"), (teacher, "teacher"), (edge, "edge"))
    return next(((label, source) for label, source in labels if label is not None), None)


def examples(
    store: Store, *, version: int | str | None = None, split: Split | None = None, where: str = "true"
) -> list[Example]:
    """Read the labelled photos for training or evaluation into memory.

    Args:
        store: The dataset.
        version: Number or tag; None for the newest.
        split: Only this one; None for all but `gold`, which is never trained on.
        where: Further condition in SQL; other rows are not read.

    Returns:
        Examples sorted by photo id, so that one version always gives the same list. The edge's label counts
        only in lane `auto` and only if no teacher contradicts it. Photos with the human label `NEITHER`
        are left out.
    """
    in_split = "split != 'gold'" if split is None else f"split = '{split}'"
    rows = store.scan(
        _Labelled.__struct_fields__,
        where=f"{HAS_IMAGE} AND {in_split} AND {_HAS_LABEL} AND ({where})",
        version=version,
    )
    return sorted(map(_example, rows), key=lambda example: example.photo_id)


def _example(row: dict[str, object]) -> Example:
    photo = msgspec.convert(row, _Labelled)
    edge = photo.edge_label if photo.lane == lanes.AUTO else None
    resolved = resolve_label(photo.human_label, photo.teacher_label, edge)
    assert resolved is not None, "the scan returns labelled photos only"
    label, source = resolved
    # Edge labels are weighted by the model's confidence; human and teacher labels count in full.
    weight = max(photo.confidence or 0.0, MIN_WEIGHT) if source == "edge" else 1.0
    return Example(photo.photo_id, photo.image, label, source, weight, photo.lane)


def label_counts(store: Store) -> dict[str, int]:
    """Count human labels by class, `NEITHER` included, sorted by name."""
    rows = store.scan(["human_label"], where=f"{HAS_IMAGE} AND human_label IS NOT NULL")
    return dict(sorted(Counter(str(row["human_label"]) for row in rows).items()))


class _Labelled(msgspec.Struct, frozen=True):
    """The columns of an example."""

    photo_id: str
    image: bytes
    human_label: str | None
    teacher_label: str | None
    edge_label: str | None
    lane: str | None
    confidence: float | None
