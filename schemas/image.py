"""Read format and size from the header of an encoded image, without decoding it.

Reading a header takes microseconds; decoding an image of 50 000 x 50 000 pixels exhausts the memory.

Source: JPEG marker segments after ITU-T T.81, annex B; PNG after RFC 2083, section 11.2.1.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.errors import PermanentError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI: markers without a length
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # not DHT, JPG and DAC
_SCAN_OR_END = frozenset({0xD9, 0xDA})  # EOI and SOS: a frame header must come before


class ImageError(PermanentError):
    """Bytes that are not a JPEG or PNG, or whose header is invalid.

    Args:
        code: Rejection code of the contract: `unsupported-image` or `corrupt-image`.
    """

    def __init__(
        self, *, expected: str, got: object, code: Literal["unsupported-image", "corrupt-image"]
    ) -> None:
        super().__init__("image", expected=expected, got=got)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format and size in pixels according to the header."""

    format: Literal["jpeg", "png"]
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


def read_header(image: bytes) -> ImageHeader:
    """Return format and size of an image; takes linear time at most.

    Raises:
        ImageError: The bytes are neither JPEG nor PNG, or have no valid header.
    """
    if image.startswith(_PNG_SIGNATURE):
        return _read_png(image)
    if image.startswith(_JPEG_SIGNATURE):
        return _read_jpeg(image)
    raise ImageError(
        expected="JPEG or PNG",
        got=f"{len(image)} bytes starting with {image[:8].hex(' ')}",
        code="unsupported-image",
    )


def _read_png(image: bytes) -> ImageHeader:
    if image[12:16] != b"IHDR" or len(image) < 33:  # noqa: PLR2004  # signature, length, type, 13 bytes, CRC
        raise ImageError(
            expected="a PNG header chunk", got=f"none in {len(image)} bytes", code="corrupt-image"
        )
    return _sized("png", int.from_bytes(image[16:20]), int.from_bytes(image[20:24]))


def _read_jpeg(image: bytes) -> ImageHeader:
    offset = len(_JPEG_SIGNATURE)
    while offset + 4 <= len(image):
        if image[offset] != 0xFF:  # noqa: PLR2004  # the first byte of every marker
            break
        marker = image[offset + 1]
        if marker == 0xFF:  # noqa: PLR2004  # a fill byte
            offset += 1
        elif marker in _STANDALONE:
            offset += 2
        elif marker in _START_OF_FRAME and offset + 9 <= len(image):
            width, height = image[offset + 7 : offset + 9], image[offset + 5 : offset + 7]
            return _sized("jpeg", int.from_bytes(width), int.from_bytes(height))
        elif marker in _SCAN_OR_END:
            break
        else:
            # A segment is at least its own length field of 2 bytes: a claimed 0 must not stop the progress.
            offset += 2 + max(2, int.from_bytes(image[offset + 2 : offset + 4]))
    raise ImageError(expected="a JPEG frame header", got=f"none in {len(image)} bytes", code="corrupt-image")


def _sized(kind: Literal["jpeg", "png"], width: int, height: int) -> ImageHeader:
    if not width or not height:
        raise ImageError(expected="at least one pixel", got=f"{width}x{height}", code="corrupt-image")
    return ImageHeader(kind, width, height)
