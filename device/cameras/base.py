"""The camera interface, and the motion measure that compares two frames."""

import io
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from PIL import Image, ImageChops, ImageStat

from schemas.errors import PermanentError

_THUMBNAIL = (64, 48)


class CameraError(PermanentError):
    """A camera that cannot be opened or does not deliver."""


class CameraExhausted(CameraError):  # noqa: N818  # like StopIteration: the end, not a failure
    """A replay has no more photos."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured image.

    Args:
        image: Encoded JPEG or PNG.
        source: Where it comes from, such as a file's path.
        label: The true class, where the camera knows it; for demonstrations and tests.
    """

    image: bytes
    source: str
    label: str | None = None


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
            CameraError: The camera delivered no frame.
        """


def motion(previous: bytes, current: bytes) -> float:
    """Return how much two frames differ: mean absolute difference of 64 x 48 grey thumbnails, 0 to 1."""
    try:
        difference = ImageChops.difference(_thumbnail(previous), _thumbnail(current))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # A frame that cannot be decoded counts as motion: it is published, and the edge rejects it with a
        # reason. If it counted as no motion, a broken camera would look like a still scene.
        return 1.0
    mean: float = ImageStat.Stat(difference).mean[0]
    return mean / 255


def _thumbnail(image: bytes) -> Image.Image:
    # Pillow would try every decoder it has; a camera delivers these two formats only.
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        # The JPEG decoder then scales down while it decodes, which saves most of the time and memory.
        picture.draft("L", _THUMBNAIL)
        return picture.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
