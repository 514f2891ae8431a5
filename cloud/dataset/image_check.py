"""Check that an image can be decoded and has all its pixels: its header first, then every pixel."""

from dataclasses import replace
from typing import NamedTuple

from schemas.errors import PermanentError
from schemas.image import ImageError, ImageFacts, ImageLimits, normal_form
from schemas.pixels import SOURCE_LIMITS, decode_photo, fit_photo


class CheckedImage(NamedTuple):
    """An image that every decoder reads: its bytes, which may be others than before, and its facts."""

    image: bytes
    facts: ImageFacts


def check_image(image: bytes, max_pixels: int, subject: str = "image") -> ImageFacts:
    """Return the facts of a JPEG or PNG; see `check_whole`."""
    return check_whole(image, ImageLimits.for_pixels(max_pixels), subject).facts


def check_whole(image: bytes, limits: ImageLimits, subject: str = "image") -> CheckedImage:
    """Decode a JPEG or PNG completely and return the bytes to store, with which no decoder has trouble.

    Costs as much CPU as decoding: call it in a thread.

    Args:
        image: Any bytes.
        limits: Images that exceed them are refused without decoding.
        subject: Name of the image in errors.

    Raises:
        PermanentError: It is not a JPEG or PNG, has too many pixels, or is truncated or damaged. A JPEG that
            lacks its end marker alone is accepted.
    """
    try:
        decoded = decode_photo(image, limits, at_least=(1, 1))
    except ImageError as error:
        raise PermanentError(subject, expected=error.expected, got=error.got, hint=error.hint) from None
    facts = decoded.facts
    assert facts is not None
    if decoded.lost is not None:
        raise PermanentError(subject, expected=f"a whole {facts.format}", got=decoded.lost)
    return CheckedImage(image if facts.exact else normal_form(image, limits), facts)


def fit_image(image: bytes, max_bytes: int, max_pixels: int, subject: str = "image") -> CheckedImage:
    """Return a picture of any camera as one to store: converted or scaled down where necessary.

    Args:
        image: Any bytes.
        max_bytes: Of the result; a larger picture is scaled down.
        max_pixels: Of the source.
        subject: Name of the image in errors.

    Raises:
        PermanentError: It cannot be read, is damaged, or is too large even for this.
    """
    source = replace(SOURCE_LIMITS, max_pixels=max_pixels)
    try:
        fitted = fit_photo(image, max_bytes, source=source, whole=True)
    except ImageError as error:
        raise PermanentError(subject, expected=error.expected, got=error.got, hint=error.hint) from None
    return check_whole(fitted, source, subject)
