"""The dataset as people and training see it: labels resolved, folders brought in."""

from collections import Counter

import msgspec

from cloud.dataset.example import AUTO_LANE, Example, Source
from cloud.dataset.schema import Split
from cloud.dataset.store import PHOTOS, Store
from schemas.messages import NEITHER

# Training wants weights above zero.
MIN_WEIGHT = 0.01

# Only in the lane auto was the edge's model sure of its label; the other lanes were harvested because it
# was not, or at random. Where the teacher contradicts it there, neither is believed; where it is silent, the
# candidates decide.
_IN_AUTO = f"coalesce(lane, '') = '{AUTO_LANE}'"
_HAS_LABEL = (
    f"coalesce(human_label, teacher_label, edge_label) != '{NEITHER}' AND (human_label IS NOT NULL"
    f" OR (teacher_label IS NOT NULL AND NOT ({_IN_AUTO} AND teacher_label != coalesce(edge_label, '')))"
    f" OR (edge_label IS NOT NULL AND teacher_label IS NULL AND {_IN_AUTO}))"
)


def resolve_label(human: str | None, teacher: str | None, edge: str | None) -> tuple[str, Source] | None:
    """Return the label to believe and whose it is: a person before the teacher before the edge's model."""
    said: tuple[tuple[str | None, Source], ...] = ((human, "human"), (teacher, "teacher"), (edge, "edge"))
    return next(((label, source) for label, source in said if label is not None), None)


def examples(
    store: Store, *, version: int | str | None = None, split: Split | None = None, where: str = "true"
) -> list[Example]:
    """Read what can be trained or judged on: photos with a label, all in memory.

    Args:
        store: The dataset.
        version: Number or tag; None for the newest.
        split: Only this one; None for all but `gold`, which no training may see.
        where: Further condition in SQL; what does not meet it is not read.

    Returns:
        Examples in the order of their ids, so that one version always gives the same list. The edge's
        own label counts only for photos of the lane `auto`, and these only where no teacher contradicts it.
        Photos of which a person said `NEITHER` are left out.
    """
    wanted = "split != 'gold'" if split is None else f"split = '{split}'"
    rows = store.scan(
        _Labelled.__struct_fields__,
        where=f"{PHOTOS} AND {wanted} AND {_HAS_LABEL} AND ({where})",
        version=version,
    )
    return sorted(map(_example, rows), key=lambda example: example.photo_id)


def _example(row: dict[str, object]) -> Example:
    photo = msgspec.convert(row, _Labelled)
    edge = photo.edge_label if photo.lane == AUTO_LANE else None
    resolved = resolve_label(photo.human_label, photo.teacher_label, edge)
    assert resolved is not None, "the scan asked for labelled photos"
    label, source = resolved
    # Among the edge's own labels the surer ones count more; a person's word is a person's word.
    weight = max(photo.confidence or 0.0, MIN_WEIGHT) if source == "edge" else 1.0
    return Example(photo.photo_id, photo.image, label, source, weight, photo.lane)


def label_counts(store: Store) -> dict[str, int]:
    """Count people's labels by what they say, sorted; `NEITHER` is among them."""
    rows = store.scan(["human_label"], where=f"{PHOTOS} AND human_label IS NOT NULL")
    return dict(sorted(Counter(str(row["human_label"]) for row in rows).items()))


class _Labelled(msgspec.Struct, frozen=True):
    """The columns that an example is made of."""

    photo_id: str
    image: bytes
    human_label: str | None
    teacher_label: str | None
    edge_label: str | None
    lane: str | None
    confidence: float | None
