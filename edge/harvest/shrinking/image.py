"""Shrink photos to training size and compute their difference hash."""

import io
import math
from typing import NamedTuple

from PIL import Image

from schemas.image import (
    DEFAULT_LIMITS,
    MAX_SAMPLE_PIXELS,
    ImageFacts,
    ImageLimits,
    inspect_image,
    normal_form,
)
from schemas.pixels import decode_photo
from schemas.pixels.difference_hash import HASHED_SIZE, difference_hash

SHORT_SIDE_PX = 320
_SHRUNK_ABOVE_PX = SHORT_SIDE_PX * 3 // 2
_SHRUNK_ABOVE_PIXELS = 500_000

_JPEG_QUALITY = 90


class Shrunk(NamedTuple):
    """An image at training size: encoded bytes, and width and height in pixels."""

    image: bytes
    width: int
    height: int


class HashedImage(NamedTuple):
    """The difference hash of an image.

    Args:
        dhash: 64 bits.
        damaged: Why some of its pixels may be wrong.
        facts: Of the file.
    """

    dhash: int
    damaged: str | None
    facts: ImageFacts | None


def shrink(
    image: bytes,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    damaged: bool = False,
) -> Shrunk:
    """Return a photo upright and scaled down to training size; one that is not much larger stays unchanged.

    Args:
        image: JPEG or PNG.
        limits: The photo is not decoded if it exceeds them.
        damaged: Whether its data are damaged: then a small one too is encoded again, as it is seen.

    Raises:
        ImageError: It cannot be decoded.
    """
    facts = inspect_image(image, limits)
    size = shrunk_size(facts)
    if size is None and not damaged:
        return Shrunk(image if facts.exact else normal_form(image, limits), facts.width, facts.height)
    size = size or (facts.width, facts.height)
    # The JPEG decoder scales by 1/2, 1/4 or 1/8: less time and memory.
    picture = decode_photo(image, limits, at_least=size).picture
    # BOX averages all pixels under a target pixel: no aliasing, and the cheapest filter that does so.
    small = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_JPEG_QUALITY)
    return Shrunk(out.getvalue(), *size)


def dhash(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> int:
    """Return the difference hash of an encoded image; see `hash_image`."""
    return hash_image(image, limits).dhash


def hash_image(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> HashedImage:
    """Return the difference hash of an encoded image, and whether its data are damaged.

    Raises:
        ImageError: It cannot be decoded.
    """
    # That libjpeg reads all of a JPEG's data, at any size that it decodes to, is enough to find damage.
    decoded = decode_photo(image, limits, at_least=HASHED_SIZE, grey=True)
    return HashedImage(difference_hash(decoded.picture), decoded.damaged, decoded.facts)


def shrunk_size(facts: ImageFacts) -> tuple[int, int] | None:
    """Return width and height in pixels of a photo at training size; None if it stays as it is.

    So does a JPEG that is less than half as large again: its bytes are not worth the time of shrinking it. A
    long photo has at most as many pixels as the collector takes, so its short side can be shorter.
    """
    short_side = min(facts.width, facts.height)
    stays = facts.format == "jpeg" and facts.pixels <= _SHRUNK_ABOVE_PIXELS
    scale = min(1.0, SHORT_SIDE_PX / short_side)
    if facts.pixels * scale**2 > MAX_SAMPLE_PIXELS:
        scale = math.sqrt(MAX_SAMPLE_PIXELS / facts.pixels)
        return max(1, math.floor(facts.width * scale)), max(1, math.floor(facts.height * scale))
    if short_side <= (_SHRUNK_ABOVE_PX if stays else SHORT_SIDE_PX):
        return None
    return round(facts.width * scale), round(facts.height * scale)


def distance(one: int, other: int) -> int:
    """Return the Hamming distance of two hashes, 0 to 64."""
    return (one ^ other).bit_count()
