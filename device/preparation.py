"""Make the photo that is sent from the picture that a camera delivers: crop, scale down, convert to JPEG.

A JPEG or PNG that an edge takes is sent byte for byte.
"""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from device.cameras.base import Camera, Frame
from schemas.image import ImageError, read_header
from schemas.pixels import MAX_PHOTO_BYTES, MAX_SIDE_PX, encode_photo, fit_photo, open_photo


@dataclass(frozen=True, slots=True)
class Preparation:
    """Requirements of a photo.

    Args:
        size: Width and height in pixels. A photo with more pixels is scaled down until its longer side is at
            most the longer one of these. None: what every edge takes.
        max_bytes: Most bytes of the encoded photo.
        quality: JPEG quality, 1 to 100, of photos that have to be encoded.
        crop: Left, top, right and bottom edge of the part to send, as shares of width and height; None: all.
    """

    size: tuple[int, int] | None = None
    max_bytes: int = MAX_PHOTO_BYTES
    quality: int = 85
    crop: tuple[float, ...] | None = None


class PreparedCamera:
    """A camera whose frames are prepared.

    A picture that cannot be decoded is passed on as it is: the edge rejects it with the reason.
    """

    def __init__(self, camera: Camera, rules: Preparation) -> None:
        self._camera = camera
        self._rules = rules

    @property
    def live(self) -> bool:
        """As of the camera."""
        return self._camera.live

    async def __aenter__(self) -> Self:
        """Open the camera."""
        await self._camera.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the camera."""
        await self._camera.__aexit__(kind, error, trace)

    async def capture(self) -> Frame:
        """Take a photo and prepare it."""
        frame = await self._camera.capture()
        try:
            image = await asyncio.to_thread(prepare, frame.image, self._rules)
        except ImageError:
            return frame
        return replace(frame, image=image, crop=self._rules.crop or frame.crop)


def prepare(image: bytes, rules: Preparation) -> bytes:
    """Return the photo to send: the picture itself if it follows the rules, else an upright JPEG.

    Args:
        image: Of any format that `fit_photo` takes.
        rules: What the photo has to be.

    Raises:
        ImageError: It cannot be read.
    """
    side = MAX_SIDE_PX if rules.size is None else max(rules.size)
    if rules.crop is None and not _has_more_pixels(image, rules.size):
        return fit_photo(image, rules.max_bytes, side, quality=rules.quality)
    left, top, right, bottom = rules.crop or (0.0, 0.0, 1.0, 1.0)
    # Open the whole picture large enough that the crop reaches the size of the photo.
    at_least = math.ceil(side / (right - left)), math.ceil(side / (bottom - top))
    picture = open_photo(image, at_least=at_least).picture
    x, y = round(left * picture.width), round(top * picture.height)
    width, height = round((right - left) * picture.width), round((bottom - top) * picture.height)
    # At least one pixel, also of a part that is narrower.
    x, y = min(x, picture.width - 1), min(y, picture.height - 1)
    part = picture.crop((x, y, x + max(1, width), y + max(1, height)))
    return encode_photo(part, rules.max_bytes, side, quality=rules.quality)


def _has_more_pixels(image: bytes, size: tuple[int, int] | None) -> bool:
    """Return True for a JPEG or PNG with more pixels than were asked for."""
    if size is None:
        return False
    with suppress(ImageError):
        return read_header(image).pixels > size[0] * size[1]
    return False
