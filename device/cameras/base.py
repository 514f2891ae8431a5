"""The camera interface, and the motion measure that compares two frames."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from PIL import Image, ImageChops, ImageStat

from schemas.errors import PermanentError
from schemas.image import ImageError
from schemas.image.signatures import JPEG_SIGNATURE, PNG_SIGNATURE, format_name
from schemas.pixels import SOURCE_LIMITS, decode_photo

_THUMBNAIL = (64, 48)
_CONVERTED = frozenset({"AVIF", "BMP", "GIF", "HEIC", "HEIF", "TIFF", "WebP"})
SIGNATURE_BYTES = 12
"""Bytes that suffice to recognise the beginning of a picture."""


class CameraError(PermanentError):
    """A camera that cannot be opened or does not deliver."""


class CameraStuckError(PermanentError):
    """A driver that hangs again and again: only a new process gets rid of its threads."""


class CameraExhausted(CameraError):  # noqa: N818  # like StopIteration: the end, not a failure
    """A replay has no more photos."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured image.

    Args:
        image: Encoded picture.
        source: Where it comes from, such as a file's path; without passwords.
        label: The true class, where the camera knows it; for demonstrations and tests.
        taken_at_ms: When it was taken, in milliseconds since 1970; None: now.
        crop: The part of the camera's picture that `image` shows: left, top, right and bottom edge as shares
            of width and height; None: all of it.
    """

    image: bytes
    source: str
    label: str | None = None
    taken_at_ms: int | None = None
    crop: tuple[float, ...] | None = None


class Camera(Protocol):
    """Takes photos while it is open."""

    @property
    def live(self) -> bool:
        """True if a moment that is not captured is lost; False for a replay, which can wait."""

    async def __aenter__(self) -> Self:
        """Open the camera.

        Raises:
            CameraError: It cannot be opened.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the camera."""

    async def capture(self) -> Frame:
        """Take a photo.

        Raises:
            CameraExhausted: There are no more.
            CameraError: The camera delivered no frame; the next call opens it again if necessary.
            CameraStuckError: The driver hangs again and again, so that the process has to end.
        """


def looks_like_picture(content: bytes) -> bool:
    """Return True if content begins as a JPEG, a PNG, or a format that the device converts to JPEG."""
    return content.startswith((JPEG_SIGNATURE, PNG_SIGNATURE)) or format_name(content) in _CONVERTED


def motion(previous: bytes, current: bytes) -> float:
    """Return how much two frames differ: mean absolute difference of 64 x 48 grey thumbnails, 0 to 1."""
    try:
        difference = ImageChops.difference(_thumbnail(previous), _thumbnail(current))
    except ImageError:
        # A frame that cannot be decoded counts as motion: it is published, and the edge rejects it with a
        # reason. If it counted as no motion, a broken camera would look like a still scene.
        return 1.0
    mean: float = ImageStat.Stat(difference).mean[0]
    return mean / 255


def _thumbnail(image: bytes) -> Image.Image:
    # The JPEG decoder scales down while it decodes, which saves most of the time and memory.
    picture = decode_photo(image, SOURCE_LIMITS, at_least=_THUMBNAIL, grey=True, warn=False).picture
    return picture.resize(_THUMBNAIL, Image.Resampling.BOX)
