"""What a person is asked: the harvested photos that wait for a label, the most informative first."""

from collections.abc import Iterable

import msgspec

from bus.mqtt.presence import now_ms
from cloud.dataset.example import AUDIT_LANE
from cloud.dataset.store import HAS_IMAGE, Label, Store
from schemas.errors import PermanentError
from schemas.messages import NEITHER, Feedback

NEAR_BITS = 6
"""Most bits by which the difference hashes of two photos of the same view differ, as at the edge."""

_AWAITING = f"{HAS_IMAGE} AND origin = 'sample' AND human_label IS NULL"


class UnlabelledPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a photo that nobody has labelled, without its image."""

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
    """A harvested photo for a person to label; node and device address the Feedback."""

    image: bytes
    node: str | None
    device: str | None


def uncertainty(photo: UnlabelledPhoto) -> float:
    """Return how little its model knew what the photo shows, 0 to 1: by what speaks most for that.

    These are the normalised entropy, the margin, the novelty (0.5 where the model begins to be out of its
    depth) and the confidence. A photo of which nothing is known is as doubtful as can be.
    """
    signs = (
        photo.entropy,
        None if photo.margin is None else 1 - photo.margin,
        None if photo.novelty is None else photo.novelty / (1 + photo.novelty),
        None if photo.confidence is None else 1 - photo.confidence,
    )
    return max((sign for sign in signs if sign is not None), default=1.0)


def _urgency(photo: UnlabelledPhoto) -> tuple[int, float, str]:
    if photo.lane == AUDIT_LANE:
        # Whoever stops half-way must have labelled a fair sample: nothing that a model said orders these.
        return 0, 0.0, photo.photo_id
    disputed = photo.teacher_label is not None and photo.teacher_label != photo.edge_label
    return 1 if disputed else 2, -uncertainty(photo), photo.photo_id


def most_informative(waiting: Iterable[UnlabelledPhoto], limit: int) -> list[UnlabelledPhoto]:
    """Choose what to ask a person.

    Args:
        waiting: In any order.
        limit: Most photos.

    Returns:
        First the lane `audit`, whose labels tell how good the model is, for at most half of the list where
        there are others; then where teacher and edge disagree; then the rest; the last two by `uncertainty`, then
        by id, so that the order is always the same. A photo of a view that is in the list already stands
        behind all others, unless it is of the lane `audit`.
    """
    ranked = sorted(waiting, key=_urgency)
    audits = sum(photo.lane == AUDIT_LANE for photo in ranked)
    most_audits = max((limit + 1) // 2, limit - (len(ranked) - audits))
    chosen: list[UnlabelledPhoto] = []
    behind: list[UnlabelledPhoto] = []
    views: list[int] = []
    for photo in ranked[: min(audits, most_audits)] + ranked[audits:]:
        if len(chosen) == limit:
            break
        view = None if photo.dhash is None else int(photo.dhash, 16)
        seen = view is not None and any((view ^ other).bit_count() <= NEAR_BITS for other in views)
        if seen and photo.lane != AUDIT_LANE:
            behind.append(photo)
            continue
        chosen.append(photo)
        if view is not None:
            views.append(view)
    return (chosen + behind)[:limit]


def awaiting_review(store: Store, limit: int) -> list[ReviewItem]:
    """Return harvested photos that no person has labelled, the most informative first.

    Args:
        store: The dataset.
        limit: At most so many; only their images are read.
    """
    rows = store.scan(UnlabelledPhoto.__struct_fields__, where=_AWAITING)
    chosen = most_informative((msgspec.convert(row, UnlabelledPhoto) for row in rows), limit)
    found = store.find([photo.photo_id for photo in chosen], ReviewItem.__struct_fields__)
    return [msgspec.convert(found[photo.photo_id], ReviewItem) for photo in chosen]


def known_classes(store: Store) -> list[str]:
    """Return the names of classes that people and models have given to photos so far, sorted."""
    rows = store.scan(["human_label", "edge_label"])
    return sorted({str(name) for row in rows for name in row.values() if name not in (None, NEITHER)})


def feedback_for(store: Store, photo_id: str, label: str, by: str) -> Feedback:
    """Return the message in which somebody says, now, what a harvested photo shows.

    Raises:
        PermanentError: There is no such photo, or no such label can be.
    """
    said = Label(photo_id=photo_id, label=label, by=by, at_ms=now_ms())
    found = store.find([photo_id], ["node", "device"]).get(photo_id)
    if found is None or found["node"] is None:
        got = "none" if found is None else "one that was imported with its label"
        raise PermanentError(f"photo {photo_id}", expected="one that was harvested", got=got)
    return Feedback(
        photo_id=photo_id,
        node=str(found["node"]),
        device=str(found["device"]),
        label=said.label,
        by=said.by,
        at_ms=said.at_ms,
    )
