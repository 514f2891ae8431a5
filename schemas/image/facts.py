"""What is known about an encoded image before it is decoded, and the budgets that it has to keep."""

from dataclasses import dataclass
from typing import Literal, Self

from schemas.errors import PermanentError

ImageCode = Literal["unsupported-image", "corrupt-image", "too-large", "too-many-pixels"]
"""Rejection codes of the contract that an image itself can cause."""

MAX_SAMPLE_PIXELS = 4_000_000
"""Of a sample: with the short side of the training size, 320 px, a panorama of 39 : 1."""

_RGB_BYTES = 3


class ImageError(PermanentError):
    """Bytes that are not an acceptable image.

    Args:
        code: Rejection code of the contract.
    """

    def __init__(
        self,
        subject: str = "image",
        *,
        expected: str | None = None,
        got: object = None,
        hint: str | None = None,
        code: ImageCode,
    ) -> None:
        super().__init__(subject, expected=expected, got=got, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Budgets that are checked before anything is decoded.

    Args:
        max_bytes: Encoded bytes.
        max_pixels: Width times height.
        max_side: Width and height. Scaling a picture to the input of a network takes memory for its longer
            side, however few pixels it has: 54 MB for 20 000, as much as the raster of a large photo.
        max_scans: Scans of a JPEG; usual progressive files have 10. Also limited by `max_scan_pixels`.
        max_scan_pixels: Pixels times scans: each scan of a progressive JPEG visits every pixel again.
        max_segments: Marker segments and tables of a JPEG.
        max_chunks: Chunks of a PNG.
        max_text_bytes: Text and colour profile of a PNG once they are decompressed.
        max_frames: Frames of an animated PNG, of which only the first is decoded.
        max_decoded_bytes: Memory of decoding, see `ImageFacts.decoded_bytes`.
    """

    max_bytes: int = 8 * 1024 * 1024
    max_pixels: int = 16_000_000
    max_side: int = 20_000
    max_scans: int = 100
    max_scan_pixels: int = 320_000_000
    max_segments: int = 2_000
    max_chunks: int = 10_000
    max_text_bytes: int = 4 * 1024 * 1024
    max_frames: int = 1_000
    max_decoded_bytes: int = 256 * 1024 * 1024

    @classmethod
    def for_pixels(cls, max_pixels: int) -> Self:
        """Return the default limits with another number of pixels, and what goes with it."""
        default = cls()
        return cls(
            max_pixels=max_pixels,
            max_scan_pixels=max_pixels * default.max_scan_pixels // default.max_pixels,
            max_decoded_bytes=max_pixels * default.max_decoded_bytes // default.max_pixels,
        )


DESCRIBE = ImageLimits(max_pixels=2**62, max_side=2**31, max_scan_pixels=2**62, max_decoded_bytes=2**62)
"""For tools that only describe an image and decode nothing: the time to read it stays limited."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An encoded image as its header, segments or chunks describe it.

    Args:
        format: Of the content.
        stored_width: In pixels, of the raster.
        stored_height: In pixels, of the raster.
        orientation: 1 to 8 as in EXIF: how the raster has to be turned for display.
        bit_depth: Bits of a sample, 1 to 16.
        channels: Samples of a stored pixel: 1 to 4.
        has_alpha: Whether pixels can be transparent.
        scans: Of a JPEG, 1 for a PNG; an interlaced PNG has 7 passes.
        decoded_bytes: Memory that decoding to RGB of 8 bits takes, without a decoder's fixed cost.
        exact: Whether every decoder reads these very bytes alike; otherwise `schemas.image.normal_form` has
            the bytes to decode.
        damaged: Why pixels may be missing, None if the file does not show that.
    """

    format: Literal["jpeg", "png"]
    stored_width: int
    stored_height: int
    orientation: int
    bit_depth: int
    channels: int
    has_alpha: bool
    scans: int
    decoded_bytes: int
    exact: bool
    damaged: str | None

    @property
    def width(self) -> int:
        """Width in pixels as displayed."""
        return self.stored_height if self.is_turned else self.stored_width

    @property
    def height(self) -> int:
        """Height in pixels as displayed."""
        return self.stored_width if self.is_turned else self.stored_height

    @property
    def is_turned(self) -> bool:
        """True if rows are displayed as columns: orientation 5 to 8."""
        return self.orientation > 4  # noqa: PLR2004  # the four that transpose come last

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.stored_width * self.stored_height


def check_bytes(image: bytes, limits: ImageLimits) -> None:
    """Raise ImageError if there are more bytes than allowed."""
    if len(image) > limits.max_bytes:
        raise ImageError(expected=f"at most {limits.max_bytes} bytes", got=len(image), code="too-large")


def check_facts(facts: ImageFacts, limits: ImageLimits) -> None:
    """Raise ImageError if decoding would exceed a budget."""
    check_pixels(facts.stored_width, facts.stored_height, limits)
    check_scans(facts.scans, facts.pixels, limits)
    if facts.decoded_bytes > limits.max_decoded_bytes:
        raise ImageError(
            expected=f"at most {limits.max_decoded_bytes} bytes once it is decoded",
            got=facts.decoded_bytes,
            code="too-many-pixels",
        )


def check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    """Raise ImageError if a raster has more pixels, or a longer side, than allowed."""
    if width * height > limits.max_pixels:
        raise ImageError(
            expected=f"at most {limits.max_pixels} pixels", got=f"{width} x {height}", code="too-many-pixels"
        )
    if max(width, height) > limits.max_side:
        raise ImageError(
            expected=f"sides of at most {limits.max_side} pixels",
            got=f"{width} x {height}",
            code="too-many-pixels",
        )


def check_scans(scans: int, pixels: int, limits: ImageLimits) -> None:
    """Raise ImageError if a JPEG has more scans than allowed for its size."""
    most = min(limits.max_scans, max(1, limits.max_scan_pixels // pixels))
    if scans > most:
        raise ImageError(
            expected=f"at most {most} scans",
            got=scans,
            hint="save the photo as a baseline JPEG",
            code="unsupported-image",
        )


def raster_bytes(width: int, height: int) -> int:
    """Return the bytes of a raster in RGB, 8 bits a channel."""
    return width * height * _RGB_BYTES
