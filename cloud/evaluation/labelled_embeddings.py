"""Read the embeddings of labelled photos from the dataset and the trainings' cache, without TensorFlow."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.photo_caches import stored_vector
from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from cloud.modeling.kernels import is_usable
from cloud.registry.model_card import Card
from schemas.codec import content_id

MAX_PHOTOS = 3000
"""Most labelled photos that are read, the newest labels first: it bounds the time."""
_LABELLED = f"{HAS_IMAGE} AND human_label IS NOT NULL AND {HAS_HUMAN_CLASS} AND split != 'gold'"
_COLUMNS = ("photo_id", "human_label", "node", "device", "model_version", "embedding")
_NEWEST = ("-human_at_ms", "photo_id")
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LabelledEmbeddings:
    """Photos with a person's label and an embedding.

    Attributes:
        vectors: `[N, D]`, of one backbone.
        photo_ids: N ids.
        labels: N classes.
        devices: N times `NODE/DEVICE`; empty for an imported photo.
        labelled: how many photos have a person's label, with or without an embedding, the gold set apart.
    """

    vectors: NDArray[np.float32]
    photo_ids: Sequence[str]
    labels: Sequence[str]
    devices: Sequence[str]
    labelled: int


def labelled_embeddings(store: Store, cards: Sequence[Card], cache_dir: Path) -> LabelledEmbeddings:
    """Read the embeddings of labelled photos, all by the backbone of the newest version.

    A sample has one from the edge that harvested it, if that ran a version with the same weights. An imported
    photo has one once a training has embedded it.

    Args:
        store: The dataset.
        cards: Of all versions, oldest first.
        cache_dir: Of the trainings; may not exist.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    labelled = store.count(_LABELLED)
    if not cards:
        return _collected([], labelled)
    same = {card.version for card in cards if card.weights_digest == cards[-1].weights_digest}
    rows = list(store.scan(_COLUMNS, where=_LABELLED, limit=MAX_PHOTOS, order=_NEWEST))
    known = {
        str(row["photo_id"]): np.array(row["embedding"], np.float32)
        for row in rows
        if row["embedding"] and row["model_version"] in same
    }
    missing = [str(row["photo_id"]) for row in rows if row["photo_id"] not in known]
    known |= _cached(store, missing, _cache_file(cards[-1], cache_dir))
    usable = [
        (known[key], key, str(row["human_label"]), camera_of(row))
        for row in rows
        if (key := str(row["photo_id"])) in known and is_usable(known[key])
    ]
    return _collected(usable, labelled)


def camera_of(row: Mapping[str, object]) -> str:
    """Return `NODE/DEVICE` of a photo's row, because names of devices are unique on one node only.

    Empty for an imported photo.
    """
    return "" if row["device"] is None else f"{row['node']}/{row['device']}"


def _collected(
    found: Sequence[tuple[NDArray[np.float32], str, str, str]], labelled: int
) -> LabelledEmbeddings:
    if not found:
        return LabelledEmbeddings(np.zeros((0, 1), np.float32), (), (), (), labelled)
    # Of one backbone they have one length; an edge that sends another one must not replace all others.
    ((length, _),) = Counter(len(one[0]) for one in found).most_common(1)
    same = [one for one in found if len(one[0]) == length]
    vectors, photo_ids, labels, devices = zip(*same, strict=True)
    return LabelledEmbeddings(np.stack(vectors), photo_ids, labels, devices, labelled)


def _cache_file(card: Card, cache_dir: Path) -> Path:
    # As `cloud/training/embeddings.py` names it, which imports TensorFlow.
    return cache_dir / f"{card.backbone}-{card.decoding}-{card.weights_digest}.sqlite3"


def _cached(store: Store, photo_ids: Sequence[str], cache: Path) -> dict[str, NDArray[np.float32]]:
    """Look photos up by their content; a cache that is absent or damaged has none."""
    if not photo_ids or not cache.is_file():
        return {}
    found = {}
    try:
        with closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=5.0)) as connection:
            for photo_id, content in _contents(store, photo_ids):
                row = connection.execute(
                    "SELECT vector FROM embedding WHERE photo = ?", (bytes.fromhex(content),)
                ).fetchone()
                if row is not None and (vector := stored_vector(row[0])) is not None:
                    found[photo_id] = vector
    except sqlite3.Error:
        return {}
    return found


def _contents(store: Store, photo_ids: Sequence[str]) -> Iterable[tuple[str, str]]:
    for start in range(0, len(photo_ids), _IMAGES_AT_ONCE):
        rows = store.find(photo_ids[start : start + _IMAGES_AT_ONCE], ["image"])
        for photo_id, row in rows.items():
            if isinstance(row["image"], bytes):
                yield photo_id, content_id(row["image"])
