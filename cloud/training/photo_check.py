"""Separate the photos that a training can use from those that it cannot, before it starts.

Every worker of a team gets the same result for the same photos, so nothing has to be exchanged, unless the
memory of one does not suffice for a photo.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cloud.dataset.example import EQUALS_GOLD, Example, LeftOut
from cloud.dataset.fingerprint import THUMBNAIL_BYTES, Fingerprint, NearDuplicates, fingerprint
from cloud.dataset.image_check import check_image
from cloud.dataset.importing.hold_out import Photo, near_groups
from cloud.dataset.photo_caches import open_cache
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import Backbone, preprocess
from cloud.progress import Progress
from cloud.training.embeddings import BATCH_PHOTOS, PREPROCESSING, decoder_reason
from schemas.errors import PermanentError

UNDECODABLE = "the picture cannot be decoded"
EQUALS_AUDIT = "the picture equals an audited photo"
OTHER_CLASS = "the label is none of the classes"
NO_PERSON = "no person has given this label"
MAX_PIXELS = 50_000_000

_INSERT = "INSERT OR REPLACE INTO photo VALUES (?, ?, ?, ?)"
_Decode = Callable[[tf.Tensor], tf.Tensor]


class Checked(NamedTuple):
    """Result for one picture: why it cannot be decoded, or its fingerprint.

    `lasting` is False if the reason is the machine and not the picture, such as a lack of memory.
    """

    reason: str | None
    fingerprint: Fingerprint | None
    lasting: bool = True


def checks_file(backbone: Backbone) -> str:
    """Return the name of the cache that a `PhotoChecker` uses."""
    return f"{backbone.name}-{PREPROCESSING}-photos.sqlite3"


class PhotoChecker:
    """Decodes each picture once with Pillow and with the training's graph; remembers the result on disk.

    The file grows by about 350 bytes per distinct picture, and can be deleted at any time.

    Args:
        backbone: Defines the graph.
        cache_dir: Created if missing.
    """

    def __init__(self, backbone: Backbone, cache_dir: Path) -> None:
        self._backbone = backbone
        self._path = cache_dir / checks_file(backbone)
        self._known: dict[str, Checked] = {}

    def decodable(self, photos: Sequence[Example], progress: Progress) -> tuple[list[Example], list[LeftOut]]:
        """Split photos into those that can be decoded, in their order, and the others."""
        self._check(photos, progress)
        reasons = {photo.content_id: self._known[photo.content_id].reason for photo in photos}
        usable = [photo for photo in photos if reasons[photo.content_id] is None]
        return usable, [
            LeftOut.of(photo, UNDECODABLE, reason)
            for photo in photos
            if (reason := reasons[photo.content_id]) is not None
        ]

    def groups(self, photos: Sequence[Example], progress: Progress) -> Ints:
        """Return the number of each photo's group of near-duplicates, `[N]`; equal pictures are in one.

        A picture that cannot be decoded is near to none. The numbers do not depend on the photos' ids.
        """
        self._check(photos, progress)
        pictures = {
            photo.content_id: Photo(photo.content_id, photo.label, found)
            for photo in photos
            if (found := self._known[photo.content_id].fingerprint) is not None
        }
        numbers: dict[str, int] = {}
        for number, group in enumerate(near_groups(pictures.values())):
            numbers |= dict.fromkeys((picture.photo_id for picture in group), number)
        return np.array(
            [numbers.setdefault(photo.content_id, len(numbers) + len(photos)) for photo in photos], np.int64
        )

    def unlike(
        self, photos: Sequence[Example], gold: Sequence[Example], reason: str = EQUALS_GOLD
    ) -> tuple[list[Example], list[LeftOut]]:
        """Split photos into those that differ from all gold photos, and the others.

        A photo equals a gold photo if it has the same bytes, or is a near-duplicate: scaled, compressed again
        or taken of the same scene. A version that was trained on it would be praised for its memory. A
        photo to which a person gave another label shows something else: two digits of one meter have almost
        the same thumbnails.

        Args:
            photos: Checked by `decodable`.
            gold: The same; or other photos that only measure.
            reason: Of those left out.
        """
        everything = _Twins(gold, self._fingerprint)
        labels = {photo.label for photo in gold}
        by_label = {
            label: _Twins([photo for photo in gold if photo.label == label], self._fingerprint)
            for label in labels
        }
        same = {photo.image: photo for photo in gold}
        usable, left_out = list[Example](), list[LeftOut]()
        for photo in photos:
            twin = same.get(photo.image)
            among = by_label.get(photo.label) if photo.human else everything
            if twin is None and among is not None:
                twin = among.find(photo)
            if twin is None:
                usable.append(photo)
            else:
                left_out.append(LeftOut.of(photo, reason, twin.file or twin.photo_id))
        return usable, left_out

    def _fingerprint(self, photo: Example) -> Fingerprint:
        found = self._known[photo.content_id].fingerprint
        assert found is not None, "the photo was checked and can be decoded"
        return found

    def _check(self, photos: Sequence[Example], progress: Progress) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        wanted = {photo.content_id: photo for photo in photos if photo.content_id not in self._known}
        opened, found_before = open_cache(self._path, "photo", lambda cache: _read(cache, wanted))
        with closing(opened) as cache:
            self._known |= found_before
            missing = [photo for key, photo in wanted.items() if key not in self._known]
            if not missing:
                return
            progress.start("check photos", len(missing))
            decode = partial(preprocess, self._backbone)
            for start in range(0, len(missing), BATCH_PHOTOS):
                batch = missing[start : start + BATCH_PHOTOS]
                found = _check_batch(batch, decode)
                with cache:
                    cache.executemany(_INSERT, (_row(one) for one in found.items() if one[1].lasting))
                self._known |= found
                progress.advance(len(batch))


class _Twins:
    """Gold photos among which near-duplicates are found."""

    def __init__(self, gold: Sequence[Example], fingerprint_of: Callable[[Example], Fingerprint]) -> None:
        self._gold, self._fingerprint_of = gold, fingerprint_of
        self._near = NearDuplicates([fingerprint_of(photo) for photo in gold])

    def find(self, photo: Example) -> Example | None:
        """Return the gold photo that shows the same, None if none does."""
        found = self._near.find(self._fingerprint_of(photo))
        return None if found is None else self._gold[found]


def with_classes(
    photos: Iterable[Example], classes: Iterable[str], reason: str = OTHER_CLASS
) -> tuple[list[Example], list[LeftOut]]:
    """Split photos into those with a label among the classes, and the others."""
    known, usable, left_out = set(classes), list[Example](), list[LeftOut]()
    for photo in photos:
        if photo.label in known:
            usable.append(photo)
        else:
            left_out.append(LeftOut.of(photo, reason, photo.label))
    return usable, left_out


def _check_batch(batch: Sequence[Example], decode: _Decode) -> dict[str, Checked]:
    checked = {photo.content_id: _pillow(photo) for photo in batch}
    rest = [photo for photo in batch if checked[photo.content_id].reason is None]
    for photo, refused in _refused_by_graph(rest, decode):
        checked[photo.content_id] = refused
    return checked


def _pillow(photo: Example) -> Checked:
    try:
        check_image(photo.image, MAX_PIXELS, "picture")
        return Checked(None, fingerprint(photo.image))
    except MemoryError:
        raise
    except PermanentError as error:
        return Checked(str(error), None)
    except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
        return Checked(f"{type(error).__name__}: {error}", None)


def _refused_by_graph(photos: Sequence[Example], decode: _Decode) -> list[tuple[Example, Checked]]:
    """Return the photos that the graph cannot decode, with its reason."""
    try:
        if photos:
            decode(tf.constant([photo.image for photo in photos]))
    except tf.errors.OpError as error:  # also ResourceExhaustedError: half of a batch needs half the memory
        if len(photos) == 1:
            return [(photos[0], _refusal(error))]
        # TensorFlow does not report which photo of a batch failed: halve until it is alone.
        middle = len(photos) // 2
        return _refused_by_graph(photos[:middle], decode) + _refused_by_graph(photos[middle:], decode)
    return []


def _refusal(error: tf.errors.OpError) -> Checked:
    if isinstance(error, tf.errors.InvalidArgumentError):
        return Checked(decoder_reason(error), None)
    lines = str(error.message).splitlines()
    return Checked(": ".join([type(error).__name__, *lines[:1]]), None, lasting=False)


def _read(cache: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Checked]:
    known = {}
    for key in keys:
        row = cache.execute(
            "SELECT reason, dhash, thumbnail FROM photo WHERE photo = ?", (bytes.fromhex(key),)
        ).fetchone()
        if row is not None and (checked := _stored(*row)) is not None:
            known[key] = checked
    return known


def _stored(reason: object, dhash: object, thumbnail: object) -> Checked | None:
    """Return the result in a row, None if the row is damaged: the picture is checked again."""
    if isinstance(reason, str) and reason:
        return Checked(reason, None)
    if reason is not None or not isinstance(dhash, str) or not isinstance(thumbnail, bytes):
        return None
    if len(thumbnail) != THUMBNAIL_BYTES or not re.fullmatch(r"[0-9a-f]{16}", dhash):
        return None
    return Checked(None, Fingerprint(int(dhash, 16), thumbnail))


def _row(item: tuple[str, Checked]) -> tuple[bytes, str | None, str | None, bytes | None]:
    key, (reason, found, _) = item
    if found is None:
        return bytes.fromhex(key), reason, None, None
    # As text: SQLite's integers are signed, and a hash has 64 bits.
    return bytes.fromhex(key), None, f"{found.dhash:016x}", found.thumbnail
