"""Cameras of this machine: a USB camera through OpenCV, and a Raspberry Pi's camera through Picamera2."""

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from device.cameras.base import CameraError, Frame

T = TypeVar("T")

_CAPTURE_TIMEOUT_S = 20.0
_JPEG_QUALITY = 90
_INSTALL_OPENCV = "install it with: pip install 'gleaner[usb]'"
_INSTALL_PICAMERA = (
    "install it with: sudo apt install python3-picamera2, and create the venv with --system-site-packages"
)


class _Driver:
    """Run the calls of a blocking driver in one thread, one at a time, each with a timeout."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        # One thread, because drivers are not thread-safe: after a timeout the next call waits in the queue
        # until the driver returns from the one that hangs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=subject)

    async def call(self, work: Callable[[], T]) -> T:
        """Run a function in the driver's thread and return its result.

        A call that is cancelled or has timed out goes on in its thread; a thread cannot be interrupted.

        Raises:
            CameraError: The call failed or timed out.
        """
        try:
            async with asyncio.timeout(_CAPTURE_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise CameraError(f"{self.subject}: no answer in {_CAPTURE_TIMEOUT_S:g} s") from None
        except (OSError, RuntimeError, IndexError) as error:  # Picamera2 raises IndexError without a camera
            raise CameraError(f"{self.subject} failed: {error}") from None

    def close(self) -> None:
        """End the thread after the running call, without waiting for it."""
        self._thread.shutdown(wait=False)


class OpenCvCamera:
    """A USB camera, or a file or stream that OpenCV can read; reopened by the first capture after a failure.

    Args:
        device: Number of the camera, or path or URL.
    """

    live = True

    def __init__(self, device: int | str) -> None:
        self._device = device
        self._driver = _Driver(f"camera usb:{device}")
        self._opened: Any = None

    async def __aenter__(self) -> Self:
        """Open the camera."""
        await self._driver.call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the camera."""
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
            raise CameraError(f"{self._driver.subject} needs OpenCV", hint=_INSTALL_OPENCV) from None
        # OpenCV prints its warnings to stderr; the failure itself is raised below as one sentence.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._cv2 = cv2
        opened = cv2.VideoCapture(self._device)
        if not opened.isOpened():
            raise CameraError(
                f"{self._driver.subject} cannot be opened",
                hint="check that it is plugged in and that no other program uses it",
            )
        opened.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._opened = opened

    def _take(self) -> Frame:
        if self._opened is None:
            self._open()
        try:
            if isinstance(self._device, int):
                self._opened.grab()  # drop the buffered frame: it is as old as the previous photo
            delivered, pixels = self._opened.read()
        except self._cv2.error:
            delivered = False
        if not delivered:
            self._release()  # so that the next capture opens it again, for example after a pulled plug
            raise CameraError(
                f"{self._driver.subject} delivered no frame", hint="check that it is plugged in"
            )
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
        """Open and start the camera."""
        await self._driver.call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the camera."""
        try:
            await self._driver.call(self._opened.close)
        finally:
            self._driver.close()

    async def capture(self) -> Frame:
        """Take a photo as JPEG."""
        return await self._driver.call(self._take)

    def _open(self) -> None:
        try:
            from picamera2 import Picamera2  # noqa: PLC0415  # only a Raspberry Pi has it
        except ImportError:
            raise CameraError("camera picamera needs Picamera2", hint=_INSTALL_PICAMERA) from None
        self._opened = Picamera2()
        self._opened.configure(self._opened.create_still_configuration())
        self._opened.start()

    def _take(self) -> Frame:
        out = io.BytesIO()
        self._opened.capture_file(out, format="jpeg")
        return Frame(out.getvalue(), "picamera")
