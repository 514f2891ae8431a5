"""Decide whether bytes are an acceptable image, before anything is decoded."""

from schemas.image.facts import DESCRIBE, ImageFacts, ImageLimits, check_bytes
from schemas.image.jpeg import JpegStream, jpeg_facts, walk_jpeg, write_jpeg
from schemas.image.png import PngStream, walk_png
from schemas.image.png_pixels import png_facts, write_png
from schemas.image.signatures import JPEG_SIGNATURE, PNG_SIGNATURE, unsupported

DEFAULT_LIMITS = ImageLimits()


def inspect_image(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageFacts:
    """Return the facts of a JPEG or PNG; takes linear time and decodes no pixels.

    Args:
        image: Any bytes.
        limits: Budgets; a sender cannot make decoding cost more, because decoders read the same bytes.

    Raises:
        ImageError: They are not a JPEG or PNG, libjpeg or libpng find nothing to decode, or a budget is
            exceeded. Pixels can still turn out to be damaged.
    """
    return facts_of(walk_image(image, limits), limits)


def walk_image(image: bytes, limits: ImageLimits) -> JpegStream | PngStream:
    """Return what a decoder reads of an image; errors as `inspect_image`, but for the cost of decoding."""
    check_bytes(image, limits)
    if image.startswith(PNG_SIGNATURE):
        return walk_png(image, limits)
    if image.startswith(JPEG_SIGNATURE):
        return walk_jpeg(image, limits)
    raise unsupported(image)


def facts_of(stream: JpegStream | PngStream, limits: ImageLimits) -> ImageFacts:
    """Return the facts of an image that was walked; raise ImageError if decoding would exceed a budget."""
    return jpeg_facts(stream, limits) if isinstance(stream, JpegStream) else png_facts(stream, limits)


def normal_form(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Return an acceptable image with what a decoder uses, and nothing else; the pixels are the same.

    For images whose facts are not `exact`: after that, all decoders agree on them.

    Raises:
        ImageError: As `inspect_image`.
    """
    stream = walk_image(image, limits)
    facts_of(stream, limits)
    return write_jpeg(stream) if isinstance(stream, JpegStream) else write_png(stream)


def read_header(image: bytes) -> ImageFacts:
    """Return the facts of an image of any size, to describe it; errors as `inspect_image`."""
    return inspect_image(image, DESCRIBE)
