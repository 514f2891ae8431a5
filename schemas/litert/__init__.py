"""The LiteRT part of a bundle: which networks it has, and how a photo becomes their input."""

from schemas.litert.manifest import (
    DECODE_SIGNATURE,
    EXTRA_ASSETS,
    FLOAT32,
    INT8,
    MANIFEST_FILE,
    NETWORK_FILE,
    PIXELS_TENSOR,
    VARIANT_METADATA,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
    read_manifest,
)

__all__ = [
    "DECODE_SIGNATURE",
    "EXTRA_ASSETS",
    "FLOAT32",
    "INT8",
    "MANIFEST_FILE",
    "NETWORK_FILE",
    "PIXELS_TENSOR",
    "VARIANT_METADATA",
    "Manifest",
    "PixelFormat",
    "Variant",
    "encode_manifest",
    "read_manifest",
]
