"""The manifest `assets.extra/litert.json`, written by the training, read by the model server.

It says how photos become the input of the networks, and which files compute the outputs. A variant is a chain
of files: each takes earlier outputs as inputs of the same name, and the outputs of all are the answer.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from schemas.errors import DECODE_ERRORS, PermanentError

EXTRA_ASSETS = "assets.extra"
MANIFEST_FILE = Path(EXTRA_ASSETS, "litert.json")
NETWORK_FILE = Path(EXTRA_ASSETS, "network.tflite")
"""Pixels to all outputs in float32; `--prefer_tflite_model` of the TensorFlow runtime uses it too."""

DECODE_SIGNATURE = "decode"
"""Signature of the SavedModel from encoded photos to the input of the networks."""

PIXELS_TENSOR = "pixels"
"""Input of a network, and output of the signature `decode`."""

FLOAT32, INT8 = "float32", "int8"
"""Names of the variants that a training writes."""

VARIANT_METADATA = "gleaner-variant"
"""Trailing metadata of an answer over gRPC: the name of the variant that gave it."""

FORMAT = 1

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]


class PixelFormat(msgspec.Struct, frozen=True):
    """How a photo becomes the input of a network.

    The photo is decoded, resized to the input's size with a triangle filter (`tf.image.resize` with
    `method="bilinear", antialias=True`), and normalised to `(value - offset) / scale`.

    Attributes:
        width: of the network's input, in pixels.
        height: of the network's input, in pixels.
        offset: subtracted from each channel value in [0, 255].
        scale: divides the difference; above 0.
    """

    width: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    height: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    offset: float
    scale: Annotated[float, msgspec.Meta(gt=0)]


class Variant(msgspec.Struct, frozen=True):
    """A way to compute the outputs.

    Attributes:
        name: such as `float32` or `int8`.
        files: names of the files in `assets.extra`, in the order of the chain.
    """

    name: _Name
    files: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=8)]


class Manifest(msgspec.Struct, frozen=True):
    """Content of the manifest.

    Attributes:
        signature: the signature of the SavedModel that the variants answer; it has one input.
        variants: at least one; each passed the gate of its training.
        pixels: None if the input of the signature is the input of the networks, without decoding.
        format: version of this format; a reader refuses a newer one.
    """

    signature: str
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1, max_length=16)]
    pixels: PixelFormat | None = None
    format: int = FORMAT


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a version; None if the version has none.

    Args:
        directory: of the version.

    Raises:
        PermanentError: the manifest is invalid, or of a later format.
        OSError: the file cannot be read.
    """
    file = directory / MANIFEST_FILE
    if not file.is_file():
        return None
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except DECODE_ERRORS as error:
        raise PermanentError(f"no valid LiteRT manifest in {file}: {error}") from None
    if manifest.format > FORMAT:
        raise PermanentError(
            f"{file} has format {manifest.format}, and this version reads formats up to {FORMAT}",
            hint="install a newer version of Gleaner on this machine",
        )
    return manifest
