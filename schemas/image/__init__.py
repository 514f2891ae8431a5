"""The one definition of an acceptable picture: formats, budgets, orientation, and the bytes to decode."""

from schemas.image.facts import MAX_SAMPLE_PIXELS, ImageCode, ImageError, ImageFacts, ImageLimits
from schemas.image.inspection import DEFAULT_LIMITS, inspect_image, normal_form, read_header
from schemas.image.signatures import format_name

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_SAMPLE_PIXELS",
    "ImageCode",
    "ImageError",
    "ImageFacts",
    "ImageLimits",
    "format_name",
    "inspect_image",
    "normal_form",
    "read_header",
]
