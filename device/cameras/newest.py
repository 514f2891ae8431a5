"""The newest picture of a source that sends pictures unasked."""

import asyncio
from typing import NamedTuple

from bus.mqtt.presence import now_ms
from device.cameras.base import CameraError, Frame

_FRESH_S = 0.5


class _Picture(NamedTuple):
    image: bytes
    began_at: float
    arrived_at: float


class NewestPicture:
    """Holds one picture, until a newer one replaces it or it is taken.

    Args:
        source: Name of the camera in results.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._picture: _Picture | None = None
        self._failure: CameraError | None = None
        self._changed = asyncio.Event()

    def put(self, image: bytes, *, began_at: float, arrived_at: float) -> None:
        """Replace the picture.

        Args:
            image: Encoded picture.
            began_at: When its first byte arrived, in seconds of the loop's clock; its time.
            arrived_at: When it was complete.
        """
        self._picture = _Picture(image, began_at, arrived_at)
        self._changed.set()

    def fail(self, failure: CameraError) -> None:
        """Let waiting and later calls of `take` fail."""
        self._failure = failure
        self._changed.set()

    async def take(self, fresh_s: float = _FRESH_S) -> Frame:
        """Return the last picture if it arrived less than `fresh_s` seconds ago; else wait for the next.

        No picture is returned twice. Safe to cancel.

        Raises:
            CameraError: The source failed before it gave a picture.
        """
        while (picture := self._picture) is None or _now() - picture.arrived_at > fresh_s:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()
        self._picture = None
        age_ms = round((_now() - picture.began_at) * 1000)
        return Frame(picture.image, self._source, taken_at_ms=now_ms() - age_ms)


def _now() -> float:
    return asyncio.get_running_loop().time()
