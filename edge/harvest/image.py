"""TODO."""

import io
from typing import NamedTuple

from PIL import Image

SHORT_SIDE_PX = 320


_JPEG_QUALITY = 90


class Shrunk(NamedTuple):
    """An image at training size: encoded bytes, and width and height in pixels."""

    image: bytes
    width: int
    height: int


def shrink(image: bytes, short_side_px: int = SHORT_SIDE_PX) -> Shrunk:
    """Return a photo with its short side at most that long; one that is small enough stays byte for byte.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        width, height = picture.size
        if min(width, height) <= short_side_px:
            return Shrunk(image, width, height)
        scale = short_side_px / min(width, height)
        size = round(width * scale), round(height * scale)
        picture.draft("RGB", size)
        small = picture.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_JPEG_QUALITY)
    return Shrunk(out.getvalue(), *size)


_HASH_COLUMNS = 9


_HASH_ROWS = 8


def dhash(image: bytes) -> int:
    """Return the 64-bit difference hash of an encoded image.

    Each bit tells whether one of 9 x 8 grey cells is brighter than its right neighbour, so two pictures of
    one view differ in few bits whatever their size and brightness.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.

    Source: D. Hackerfactor (N. Krawetz), "Kind of Like That", 2013.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        picture.draft("L", (8 * _HASH_COLUMNS, 8 * _HASH_ROWS))  # a JPEG decodes at an eighth for this
        cells = picture.convert("L").resize((_HASH_COLUMNS, _HASH_ROWS), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(_HASH_ROWS):
        for column in range(_HASH_COLUMNS - 1):
            at = row * _HASH_COLUMNS + column
            bits = bits << 1 | (cells[at] > cells[at + 1])
    return bits


def distance(one: int, other: int) -> int:
    """Return in how many of 64 bits two hashes differ (Hamming)."""
    return (one ^ other).bit_count()
