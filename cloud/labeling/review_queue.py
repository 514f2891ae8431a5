"""Read the unlabelled samples for review in their order (active learning), and make the labels' messages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bus.mqtt.presence import now_ms
from cloud.dataset.rows.typed_rows import typed_rows
from cloud.dataset.store import HAS_IMAGE, MODEL_TAG, Label, Store
from cloud.evaluation.unseen import readable_version
from cloud.labeling.review_order import (
    Pool,
    UnlabelledPhoto,
    informativeness,
    most_informative,
    pool_weights,
)
from cloud.modeling.alignment import align, moments_by_group
from cloud.modeling.kernels import is_usable, most_common_length, unit_length
from schemas.class_names import NEITHER, class_name
from schemas.errors import PermanentError
from schemas.lanes import AUDIT, HARD
from schemas.messages import Feedback
from schemas.topics import CLOUD

__all__ = [
    "PERSON",
    "Embedded",
    "ReviewItem",
    "UnlabelledPhoto",
    "awaiting_review",
    "build_pool",
    "count_uncertain",
    "feedback_for",
    "feedbacks_for",
    "informativeness",
    "known_classes",
    "listed_for_review",
    "most_informative",
    "newest_first",
]

MAX_LABELLED = 2048
"""Most labelled photos whose embeddings are read, the newest labels first."""

_AWAITING = f"{HAS_IMAGE} AND origin = 'sample' AND human_label IS NULL"
_LABELLED = f"{HAS_IMAGE} AND human_label IS NOT NULL AND embedding IS NOT NULL AND split != 'gold'"
_GROUP = ("node", "device", "model", "model_version")
"""Columns that two photos share whose embeddings are standardised together: one camera, one period."""
_COLUMNS = tuple(name for name in UnlabelledPhoto.__struct_fields__ if name != "reason")


class ReviewItem(UnlabelledPhoto, frozen=True, kw_only=True):
    """A photo for a reviewer to label; node and device address the Feedback."""

    image: bytes
    received_at_ms: int
    node: str | None
    device: str | None


class Embedded(NamedTuple):
    """A photo's embedding `[D]`, and the group that it is standardised with."""

    embedding: NDArray[np.float32]
    group: tuple[object, ...]


def count_uncertain(store: Store) -> int:
    """Return how many samples of the lanes hard and audit have no human label."""
    return store.count(f"{_AWAITING} AND lane IN ('{HARD}', '{AUDIT}')")


def awaiting_review(store: Store, limit: int) -> list[ReviewItem]:
    """Return samples without a human label in the order of `most_informative`, each with its reason.

    Args:
        store: The dataset.
        limit: Maximum number; only their images are read, and the embeddings of at most `POOL_PHOTOS`
            unlabelled and `MAX_LABELLED` labelled photos.
    """
    chosen = listed_for_review(store, limit)
    found = store.find(
        [photo.photo_id for photo in chosen],
        [name for name in ReviewItem.__struct_fields__ if name != "reason"],
    )
    rows = (found[one.photo_id] | {"reason": one.reason} for one in chosen if one.photo_id in found)
    return list(typed_rows(rows, ReviewItem))


def listed_for_review(store: Store, limit: int) -> list[UnlabelledPhoto]:
    """Return the same photos without reading an image, for a caller that shows them one after the other."""
    rows = store.scan(_COLUMNS, where=_AWAITING)
    waiting = list(typed_rows(rows, UnlabelledPhoto))
    passed_over = _waited_at_last_training(store)
    newer, older = (
        [photo for photo in waiting if (photo.photo_id in passed_over) == before] for before in (False, True)
    )
    return newest_first(newer, older, limit, partial(_pool, store))


def newest_first(
    newer: Sequence[UnlabelledPhoto],
    older: Sequence[UnlabelledPhoto],
    limit: int,
    pool: Callable[[Sequence[UnlabelledPhoto]], Pool | None],
) -> list[UnlabelledPhoto]:
    """List photos that came since the last training, then those that people passed over before it.

    Cameras and light change: photos that wait for long stand for what is no longer sent, and where each
    device had its turn, most labels went to devices of before (docs/experiments.md).

    Args:
        newer: Photos that came since the last training.
        older: The others.
        limit: Maximum number.
        pool: Reads the embeddings that represent some photos.
    """
    listed = most_informative(newer, limit, pool(newer))
    if not older or len(listed) == limit:
        return listed
    return listed + most_informative(older, limit - len(listed), pool(older))


def _waited_at_last_training(store: Store) -> frozenset[str]:
    """Return the ids of the photos that waited when the newest version was trained; empty if unknown."""
    trained = [version for tag, version in store.tags().items() if tag.startswith(MODEL_TAG)]
    known = readable_version(store, max(trained, default=None))
    if known is None:  # nothing was trained, or what was forgotten took the tags with it
        return frozenset()
    return frozenset(str(row["photo_id"]) for row in store.scan(["photo_id"], where=_AWAITING, version=known))


def _pool(store: Store, waiting: Sequence[UnlabelledPhoto]) -> Pool | None:
    """Read embeddings that represent the waiting photos, and those of labelled ones; None if there are none.

    Photos imported from a folder have no embedding, and count as unlabelled here. Those of another length
    are of another backbone and are left out; of the same length they are taken for the same backbone.
    """
    weights = pool_weights(waiting)
    columns = ["embedding", *_GROUP]
    rows = store.find(list(weights), columns)
    # Others were deleted since the scan, or harvested with a model that has no embeddings.
    read = {key: _embedded(rows[key]) for key in weights if key in rows and rows[key]["embedding"]}
    unlabelled = {key: one for key, one in read.items() if is_usable(one.embedding)}
    order = ("-human_at_ms", "photo_id")
    labelled = store.scan(columns, where=_LABELLED, limit=MAX_LABELLED, order=order) if unlabelled else ()
    return build_pool(weights, unlabelled, [_embedded(row) for row in labelled])


def build_pool(
    weights: Mapping[str, float], unlabelled: Mapping[str, Embedded], labelled: Sequence[Embedded]
) -> Pool | None:
    """Align the embeddings of waiting and labelled photos; None if no waiting photo has one.

    Args:
        weights: How many photos each one stands for, by id.
        unlabelled: Waiting photos, by id.
        labelled: Labelled photos; those of another length than most waiting ones are left out.
    """
    if not unlabelled:
        return None
    length = most_common_length(one.embedding for one in unlabelled.values())
    ids = [key for key, one in unlabelled.items() if len(one.embedding) == length]
    rated = [one for one in labelled if len(one.embedding) == length and is_usable(one.embedding)]
    aligned = _aligned([*(unlabelled[key] for key in ids), *rated])
    return Pool(ids, aligned[: len(ids)], np.array([weights[key] for key in ids]), aligned[len(ids) :])


def _aligned(photos: Sequence[Embedded]) -> NDArray[np.float32]:
    """Standardise each photo's embedding by those of its camera and period, and divide by its length.

    Without it, light and camera decide which photos are alike (docs/experiments.md).
    """
    embeddings, groups = np.stack([one.embedding for one in photos]), [one.group for one in photos]
    return unit_length(align(embeddings, groups, moments_by_group(embeddings, groups)))


def _embedded(row: dict[str, object]) -> Embedded:
    return Embedded(np.array(row["embedding"], np.float32), tuple(row[name] for name in _GROUP))


def known_classes(store: Store) -> list[str]:
    """Return the classes that people and edge models have given to photos, sorted."""
    rows = store.scan(["human_label", "edge_label"])
    return sorted({str(name) for row in rows for name in row.values() if name not in (None, NEITHER)})


PERSON = "operator"
"""Name on the topic of node `cloud` that people's labels have where devices prove who they are."""


def feedback_for(
    store: Store, photo_id: str, label: str, by: str, *, as_person: bool = False
) -> Feedback | Label:
    """Return the message that gives a sample a label now, or the label itself for an imported photo.

    Args:
        store: The dataset.
        photo_id: Of a photo in the dataset.
        label: Class.
        by: Name of the person.
        as_person: Address it to node `cloud`, which no device may write, instead of the device's own topic.

    Raises:
        PermanentError: The photo does not exist, or a field is out of range.
    """
    return feedbacks_for(store, [photo_id], label, by, as_person=as_person)[0]


def feedbacks_for(
    store: Store, photo_ids: Sequence[str], label: str, by: str, *, as_person: bool = False
) -> list[Feedback | Label]:
    """Return what `feedback_for` does for each of several photos that get the same label.

    Raises:
        PermanentError: One of the photos does not exist, or a field is out of range.
    """
    name, now = class_name(label) if label else label, now_ms()
    labels = [Label(photo_id=photo_id, label=name, by=by, at_ms=now) for photo_id in photo_ids]
    found = store.find(photo_ids, ["node", "device"])
    if missing := [photo_id for photo_id in photo_ids if photo_id not in found]:
        raise PermanentError(f"photo {missing[0]}: not in the dataset")
    return [_addressed(one, found[one.photo_id], as_person=as_person) for one in labels]


def _addressed(label: Label, row: Mapping[str, object], *, as_person: bool) -> Feedback | Label:
    if row["node"] is None:
        return label
    return Feedback(
        photo_id=label.photo_id,
        node=CLOUD if as_person else str(row["node"]),
        device=PERSON if as_person else str(row["device"]),
        label=label.label,
        by=label.by,
        at_ms=label.at_ms,
    )
