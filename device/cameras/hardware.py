"""Cameras of this machine: a USB camera through OpenCV, and a Raspberry Pi's own through Picamera2."""

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from device.cameras.base import CameraError, Frame

T = TypeVar("T")

_CAPTURE_S = 20.0
_JPEG_QUALITY = 90
_OPENCV = "OpenCV: pip install 'gleaner[usb]'"
_PICAMERA = "Picamera2: sudo apt install python3-picamera2, and a venv with --system-site-packages"


class _Driver:
    """Calls a driver in a thread of its own, one call at a time, each with a deadline.

    A driver that hangs is an error and not a wait; further calls wait behind the one that hangs.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=subject)

    async def call(self, work: Callable[[], T]) -> T:
        """Do it.

        Raises:
            CameraError: It failed or took too long.
        """
        try:
            async with asyncio.timeout(_CAPTURE_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            got = f"none within {_CAPTURE_S:g} s"
            raise CameraError(self.subject, expected="an answer of its driver", got=got) from None
        except (OSError, RuntimeError, IndexError) as error:
            raise CameraError(self.subject, expected="to work", got=error) from None

    def close(self) -> None:
        """End the thread after the call that is under way."""
        self._thread.shutdown(wait=False)


class OpenCvCamera:
    """A USB camera, or a file or stream that OpenCV can read; it is opened again after a failure.

    Args:
        device: Number of the camera, or path or URL.
    """

    live = True

    def __init__(self, device: int | str) -> None:
        self._device = device
        self._driver = _Driver(f"camera usb:{device}")
        self._opened: Any = None

    async def __aenter__(self) -> Self:
        """Open it."""
        await self._driver.call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        try:
            await self._driver.call(self._release)
        finally:
            self._driver.close()

    async def capture(self) -> Frame:
        """Take a photo as JPEG of quality 90."""
        return await self._driver.call(self._take)

    def _open(self) -> None:
        try:
            import cv2  # noqa: PLC0415  # tens of megabytes that only this camera needs
        except ImportError:
            raise CameraError(self._driver.subject, expected=_OPENCV, got="no cv2") from None
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is raised here
        self._cv2 = cv2
        opened = cv2.VideoCapture(self._device)
        if not opened.isOpened():
            raise CameraError(self._driver.subject, expected="a camera that opens", got="none")
        opened.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._opened = opened

    def _take(self) -> Frame:
        if self._opened is None:
            self._open()
        try:
            if isinstance(self._device, int):
                self._opened.grab()  # the driver holds a frame that is as old as the last photo
            there, pixels = self._opened.read()
        except self._cv2.error:
            there = False
        if not there:
            self._release()
            raise CameraError(self._driver.subject, expected="a frame", got="none; is it plugged in?")
        _, encoded = self._cv2.imencode(".jpg", pixels, [self._cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return Frame(encoded.tobytes(), f"usb:{self._device}")

    def _release(self) -> None:
        if self._opened is not None:
            self._opened.release()
            self._opened = None


class PicameraCamera:
    """The camera of a Raspberry Pi, through Picamera2."""

    live = True

    def __init__(self) -> None:
        self._driver = _Driver("camera picamera")
        self._opened: Any = None

    async def __aenter__(self) -> Self:
        """Open and start it."""
        await self._driver.call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        try:
            await self._driver.call(self._opened.close)
        finally:
            self._driver.close()

    async def capture(self) -> Frame:
        """Take a photo as JPEG."""
        return await self._driver.call(self._take)

    def _open(self) -> None:
        try:
            from picamera2 import Picamera2  # noqa: PLC0415  # exists on a Raspberry Pi alone
        except ImportError:
            raise CameraError(self._driver.subject, expected=_PICAMERA, got="no picamera2") from None
        self._opened = Picamera2()
        self._opened.configure(self._opened.create_still_configuration())
        self._opened.start()

    def _take(self) -> Frame:
        out = io.BytesIO()
        self._opened.capture_file(out, format="jpeg")
        return Frame(out.getvalue(), "picamera")
