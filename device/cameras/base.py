"""What a camera is, and how much two of its frames differ."""

import io
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from PIL import Image, ImageChops, ImageStat

from schemas.errors import PermanentError

_THUMBNAIL = (64, 48)


class CameraError(PermanentError):
    """A camera that cannot be opened or does not deliver."""


class CameraExhausted(CameraError):  # noqa: N818  # like StopIteration, an end and no fault
    """A replay has come to its end."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a camera took.

    Args:
        image: Encoded JPEG or PNG.
        source: Where it comes from, such as a file's path.
        label: The truth, where the camera knows it; for demonstrations and tests.
    """

    image: bytes
    source: str
    label: str | None = None


class Camera(Protocol):
    """Takes photos while it is open."""

    @property
    def live(self) -> bool:
        """Whether a moment not taken is gone; a replay can wait."""

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            CameraError: It cannot be opened.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    async def capture(self) -> Frame:
        """Take a photo.

        Raises:
            CameraExhausted: There are no more.
            CameraError: It did not deliver.
        """


def motion(previous: bytes, current: bytes) -> float:
    """Return how much two frames differ: mean absolute difference of 64 x 48 grey thumbnails, 0 to 1.

    A frame that cannot be decoded differs from everything: whoever gets it has to say so.
    """
    try:
        difference = ImageChops.difference(_thumbnail(previous), _thumbnail(current))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1.0
    mean: float = ImageStat.Stat(difference).mean[0]
    return mean / 255


def _thumbnail(image: bytes) -> Image.Image:
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        picture.draft("L", _THUMBNAIL)
        return picture.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
