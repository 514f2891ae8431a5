"""Shrink photos to training size and compute their difference hash."""

import io
from typing import NamedTuple

from PIL import Image

SHORT_SIDE_PX = 320

_JPEG_QUALITY = 90
_HASH_COLUMNS = 9
_HASH_ROWS = 8

# `edge.inference.validation` already limits the pixels in the header; Pillow's own limit would only warn.
Image.MAX_IMAGE_PIXELS = None


class Shrunk(NamedTuple):
    """An image at training size: encoded bytes, and width and height in pixels."""

    image: bytes
    width: int
    height: int


def shrink(image: bytes, short_side_px: int = SHORT_SIDE_PX) -> Shrunk:
    """Return a photo scaled down to this short side; a smaller one is returned unchanged.

    Args:
        image: JPEG or PNG.
        short_side_px: Target length in pixels.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        width, height = picture.size
        if min(width, height) <= short_side_px:
            return Shrunk(image, width, height)  # encoding it again would lose quality for nothing
        scale = short_side_px / min(width, height)
        size = round(width * scale), round(height * scale)
        picture.draft("RGB", size)  # lets the JPEG decoder scale by 1/2, 1/4 or 1/8: less time and memory
        # BOX averages all pixels under a target pixel: no aliasing, and the cheapest filter that does so.
        small = picture.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_JPEG_QUALITY)
    return Shrunk(out.getvalue(), *size)


def dhash(image: bytes) -> int:
    """Return the 64-bit difference hash of an encoded image.

    Each bit is 1 if one of 9 x 8 grey cells is brighter than its right neighbour, so size, brightness and
    compression change few bits.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.

    Source: D. Hackerfactor (N. Krawetz), "Kind of Like That", 2013.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        picture.draft("L", (8 * _HASH_COLUMNS, 8 * _HASH_ROWS))  # a JPEG is decoded at 1/8 of its size
        cells = picture.convert("L").resize((_HASH_COLUMNS, _HASH_ROWS), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(_HASH_ROWS):
        for column in range(_HASH_COLUMNS - 1):
            at = row * _HASH_COLUMNS + column
            bits = bits << 1 | (cells[at] > cells[at + 1])
    return bits


def distance(one: int, other: int) -> int:
    """Return the Hamming distance of two hashes, 0 to 64."""
    return (one ^ other).bit_count()
