"""Rank the unlabelled samples for review (active learning): audit, disagreement, then informativeness."""

from collections.abc import Iterable

import msgspec

from bus.mqtt.presence import now_ms
from cloud.dataset.store import HAS_IMAGE, Label, Store
from schemas import lanes
from schemas.errors import PermanentError
from schemas.messages import NEITHER, Feedback

NEAR_BITS = 6
"""Largest Hamming distance of the difference hashes of near-duplicates, as at the edge."""

_AWAITING = f"{HAS_IMAGE} AND origin = 'sample' AND human_label IS NULL"


class UnlabelledPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a photo without a human label that decide its rank; the image is not among them."""

    photo_id: str
    dhash: str | None = None
    lane: str | None = None
    edge_label: str | None = None
    teacher_label: str | None = None
    confidence: float | None = None
    margin: float | None = None
    entropy: float | None = None
    novelty: float | None = None


class ReviewItem(UnlabelledPhoto, frozen=True, kw_only=True):
    """A photo for a reviewer to label; node and device address the Feedback."""

    image: bytes
    node: str | None
    device: str | None


def informativeness(photo: UnlabelledPhoto) -> float:
    """Return how informative a human label would be, in [0, 1]: the largest of four signals.

    They are the normalised entropy, 1 - margin, 1 - confidence, and the novelty scaled so that 1, where the
    photo is out of distribution, becomes 0.5. Without any of them the result is 1.
    """
    signals = (
        photo.entropy,
        None if photo.margin is None else 1 - photo.margin,
        None if photo.novelty is None else photo.novelty / (1 + photo.novelty),
        None if photo.confidence is None else 1 - photo.confidence,
    )
    return max((signal for signal in signals if signal is not None), default=1.0)


def _sort_key(photo: UnlabelledPhoto) -> tuple[int, float, str]:
    if photo.lane == lanes.AUDIT:
        # By id, which is random: after any number of labels they are an unbiased sample.
        return 0, 0.0, photo.photo_id
    disputed = photo.teacher_label is not None and photo.teacher_label != photo.edge_label
    return 1 if disputed else 2, -informativeness(photo), photo.photo_id


def most_informative(photos: Iterable[UnlabelledPhoto], limit: int) -> list[UnlabelledPhoto]:
    """Choose the photos to label, in a deterministic order.

    Args:
        photos: In any order.
        limit: Maximum number of photos.

    Returns:
        First lane `audit`, which fills at most half of the list while there are others; then photos with
        different labels by teacher and edge; then the rest. The last two are sorted by `informativeness`,
        then by id. A near-duplicate of a listed photo comes after all others, unless it is of lane `audit`.
    """
    ranked = sorted(photos, key=_sort_key)
    audits = sum(photo.lane == lanes.AUDIT for photo in ranked)
    max_audits = max((limit + 1) // 2, limit - (len(ranked) - audits))
    chosen: list[UnlabelledPhoto] = []
    near_duplicates: list[UnlabelledPhoto] = []
    hashes: list[int] = []
    for photo in ranked[: min(audits, max_audits)] + ranked[audits:]:
        if len(chosen) == limit:
            break
        dhash = None if photo.dhash is None else int(photo.dhash, 16)
        is_near = dhash is not None and any((dhash ^ other).bit_count() <= NEAR_BITS for other in hashes)
        # Leaving out audit photos by their content would bias the audited accuracy.
        if is_near and photo.lane != lanes.AUDIT:
            near_duplicates.append(photo)
            continue
        chosen.append(photo)
        if dhash is not None:
            hashes.append(dhash)
    return (chosen + near_duplicates)[:limit]


def awaiting_review(store: Store, limit: int) -> list[ReviewItem]:
    """Return samples without a human label, most informative first.

    Args:
        store: The dataset.
        limit: Maximum number; only their images are read.
    """
    rows = store.scan(UnlabelledPhoto.__struct_fields__, where=_AWAITING)
    chosen = most_informative((msgspec.convert(row, UnlabelledPhoto) for row in rows), limit)
    found = store.find([photo.photo_id for photo in chosen], ReviewItem.__struct_fields__)
    return [msgspec.convert(found[photo.photo_id], ReviewItem) for photo in chosen]


def known_classes(store: Store) -> list[str]:
    """Return the classes that people and edge models have given to photos, sorted."""
    rows = store.scan(["human_label", "edge_label"])
    return sorted({str(name) for row in rows for name in row.values() if name not in (None, NEITHER)})


def feedback_for(store: Store, photo_id: str, label: str, by: str) -> Feedback:
    """Return the message that gives a sample a label now.

    Raises:
        PermanentError: The sample does not exist, or a field is out of range.
    """
    checked = Label(photo_id=photo_id, label=label, by=by, at_ms=now_ms())
    found = store.find([photo_id], ["node", "device"]).get(photo_id)
    if found is None:
        raise PermanentError(f"photo {photo_id}: not in the dataset")
    if found["node"] is None:
        # Feedback is addressed to the node and device of a sample.
        raise PermanentError(
            f"photo {photo_id}: imported with its label; only samples are labelled by review"
        )
    return Feedback(
        photo_id=photo_id,
        node=str(found["node"]),
        device=str(found["device"]),
        label=checked.label,
        by=checked.by,
        at_ms=checked.at_ms,
    )
