"""The fresh audit slice: a random sample of what the cameras see now, which judges and is not trained on.

It is kept out of every training that it judges, and so for as long as one champion stays. Once another takes
its place, the photos that were received before are trained on like any that a person labelled.
"""

from collections.abc import Sequence

import msgspec

from cloud.examples import AUDIT_LANE, Example
from cloud.store import NAMED, PHOTOS, Store

_FRESH = (
    f"{PHOTOS} AND lane = '{AUDIT_LANE}' AND split != 'gold' AND {NAMED} AND inclusion > 0"
    " AND received_at_ms > {since_ms}"
)


def audit_slice(store: Store, since_ms: int, *, version: int | str | None = None) -> list[Example]:
    """Read what a new version is judged on beside the gold set: a random sample of what the cameras see now.

    Args:
        store: The dataset.
        since_ms: When the champion was trained, UTC: what was received later, it cannot have seen.
        version: Number or tag; None for the newest.

    Returns:
        Photos of the lane audit whose class a person named; each weighs as many photos as it stands for, one
        over the probability with which it was drawn. What was drawn with an unknown probability is left out.
    """
    rows = store.scan(_Audited.__struct_fields__, where=_FRESH.format(since_ms=since_ms), version=version)
    drawn = [msgspec.convert(row, _Audited) for row in rows]
    return [
        Example(photo.photo_id, photo.image, photo.human_label, "human", 1 / photo.inclusion, AUDIT_LANE)
        for photo in sorted(drawn, key=lambda photo: photo.photo_id)
    ]


class _Audited(msgspec.Struct, frozen=True):
    """The columns that a photo of the audit slice is made of."""

    photo_id: str
    image: bytes
    human_label: str
    inclusion: float


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
