"""What the pixels of a photo are, for users of Pillow; `schemas.image` decides before whether it is one."""

from schemas.pixels.decoding import BACKGROUND, DECODING, Decoded, decode_photo
from schemas.pixels.fitting import (
    MAX_PHOTO_BYTES,
    MAX_PHOTO_PIXELS,
    MAX_SIDE_PX,
    SOURCE_LIMITS,
    encode_photo,
    fit_photo,
    open_photo,
)

__all__ = [
    "BACKGROUND",
    "DECODING",
    "MAX_PHOTO_BYTES",
    "MAX_PHOTO_PIXELS",
    "MAX_SIDE_PX",
    "SOURCE_LIMITS",
    "Decoded",
    "decode_photo",
    "encode_photo",
    "fit_photo",
    "open_photo",
]
