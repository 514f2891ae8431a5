"""Find near-duplicates: pictures that show the same although their bytes differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from schemas.pixels import SOURCE_LIMITS, decode_photo
from schemas.pixels.difference_hash import HASHED_SIZE, difference_hash

MAX_HASH_BITS = 6
"""Largest Hamming distance of the difference hashes of near-duplicates, as at the edge."""
MAX_GREY_DIFFERENCE = 12.0
"""Largest mean difference of the thumbnails of near-duplicates, in grey levels of 255.

The difference hash alone is the same for all flat pictures, and for two animals before one background.
"""

_SIDE_PX = 16
THUMBNAIL_BYTES = _SIDE_PX * _SIDE_PX
"""Length of a thumbnail."""
_MIN_ROOM = 64


class Fingerprint(NamedTuple):
    """What is compared of a picture.

    Attributes:
        dhash: 64-bit difference hash.
        thumbnail: 16 x 16 grey values, 256 bytes.
    """

    dhash: int
    thumbnail: bytes


def fingerprint(image: bytes) -> Fingerprint:
    """Return the fingerprint of an encoded JPEG or PNG, as it is seen: turned by its EXIF orientation.

    Raises:
        ImageError: It cannot be decoded.
    """
    upright = decode_photo(image, SOURCE_LIMITS, at_least=HASHED_SIZE, grey=True).picture
    thumbnail = upright.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX).tobytes()
    return Fingerprint(difference_hash(upright), thumbnail)


class NearDuplicates:
    """Pictures among which near-duplicates are found; 264 bytes each.

    Args:
        pictures: Their fingerprints.
    """

    def __init__(self, pictures: Sequence[Fingerprint] = ()) -> None:
        self._hashes = np.zeros(max(_MIN_ROOM, len(pictures)), np.uint64)
        self._thumbnails = np.zeros((len(self._hashes), _SIDE_PX * _SIDE_PX), np.uint8)
        self._count = 0
        for picture in pictures:
            self.add(picture)

    def add(self, picture: Fingerprint) -> None:
        """Add a picture; its position is the number of pictures before it."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._thumbnails = np.concatenate([self._thumbnails, np.zeros_like(self._thumbnails)])
        self._hashes[self._count] = picture.dhash
        self._thumbnails[self._count] = np.frombuffer(picture.thumbnail, np.uint8)
        self._count += 1

    def find(self, picture: Fingerprint) -> int | None:
        """Return the position of the nearest picture that shows the same, None if none does."""
        distances = np.bitwise_count(self._hashes[: self._count] ^ np.uint64(picture.dhash))
        near = np.flatnonzero(distances <= MAX_HASH_BITS)
        if len(near) == 0:
            return None
        thumbnail = np.frombuffer(picture.thumbnail, np.uint8).astype(np.int16)
        differences = np.abs(self._thumbnails[near] - thumbnail).mean(axis=1)
        best = int(differences.argmin())
        return int(near[best]) if differences[best] <= MAX_GREY_DIFFERENCE else None
