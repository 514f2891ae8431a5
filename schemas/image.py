"""What an encoded image says of itself before anything is decoded: format and size.

A header costs microseconds; a decoder that trusts 50 000 x 50 000 pixels costs the machine.

Source: JPEG marker segments after ITU-T T.81, annex B; PNG after RFC 2083, section 11.2.1.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.errors import PermanentError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN_OR_END = frozenset({0xD9, 0xDA})


class ImageError(PermanentError):
    """Bytes that are no JPEG or PNG, or whose header is broken.

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
    """Format and size in pixels, as the header claims."""

    format: Literal["jpeg", "png"]
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(image: bytes) -> ImageHeader:
    """Return what the header says; takes linear time at most and decodes nothing.

    Raises:
        ImageError: Neither JPEG nor PNG by content, or no valid header.
    """
    if image.startswith(_PNG_SIGNATURE):
        return _read_png(image)
    if image.startswith(b"\xff\xd8"):
        return _read_jpeg(image)
    raise ImageError(
        expected="JPEG or PNG",
        got=f"{len(image)} bytes starting with {image[:8].hex(' ')}",
        code="unsupported-image",
    )


def _read_png(image: bytes) -> ImageHeader:
    if image[12:16] != b"IHDR" or len(image) < 33:  # noqa: PLR2004  # signature, length, type, 13 bytes, CRC
        raise ImageError(
            expected="a PNG header chunk", got=f"{len(image)} bytes without", code="corrupt-image"
        )
    return _sized("png", int.from_bytes(image[16:20]), int.from_bytes(image[20:24]))


def _read_jpeg(image: bytes) -> ImageHeader:
    at = 2
    while at + 4 <= len(image):
        if image[at] != 0xFF:  # noqa: PLR2004  # every marker begins so
            break
        marker = image[at + 1]
        if marker == 0xFF:  # noqa: PLR2004  # a fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _START_OF_FRAME and at + 9 <= len(image):
            return _sized(
                "jpeg", int.from_bytes(image[at + 7 : at + 9]), int.from_bytes(image[at + 5 : at + 7])
            )
        elif marker in _SCAN_OR_END:
            break
        else:
            at += 2 + max(2, int.from_bytes(image[at + 2 : at + 4]))
    raise ImageError(expected="a JPEG frame header", got=f"none in {len(image)} bytes", code="corrupt-image")


def _sized(kind: Literal["jpeg", "png"], width: int, height: int) -> ImageHeader:
    if not width or not height:
        raise ImageError(expected="at least one pixel", got=f"{width}x{height}", code="corrupt-image")
    return ImageHeader(kind, width, height)
