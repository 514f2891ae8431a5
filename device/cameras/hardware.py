"""Cameras behind a blocking driver: OpenCV for USB and video streams, Picamera2 for a Raspberry Pi."""

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from device.cameras.address import scheme_of
from device.cameras.base import CameraError
from device.cameras.driver import CAPTURE_TIMEOUT_S, OPEN_TIMEOUT_S, DriverCamera
from device.cameras.lag import LagMeter
from schemas.distribution import install_command
from schemas.text import escaped, is_unicode, without_secrets

log = structlog.get_logger()

_INSTALL_PICAMERA = (
    "install it with: sudo apt install python3-picamera2, and create the venv with --system-site-packages"
)
_CHECK_DEVICE = "check that it is plugged in and that no other program uses it"
_CHECK_STREAM = "check address, user and password, and that the camera answers"
_QUIET = "-8"  # AV_LOG_QUIET
_TIMED = ("rtsp", "rtsps")
"""Streams whose frames have timestamps; for others OpenCV assumes a frame rate."""
_MAX_DEVICE = 2**31 - 1
MAX_LAG_S = 2.0
"""A stream that is further behind is opened again."""
_SKIP_S = 2.0


@dataclass(frozen=True, slots=True)
class Shot:
    """What a camera is asked for.

    Args:
        size: Width and height in pixels; None: what the camera delivers by default.
        quality: JPEG quality, 1 to 100.
    """

    size: tuple[int, int] | None = None
    quality: int = 90


def opencv_camera(device: int | str, shot: Shot = Shot()) -> DriverCamera:  # frozen
    """Return a USB camera, or a file or stream that OpenCV can read.

    Args:
        device: Number of the camera, or path or URL. Of a file, each photo is its next frame.
        shot: Size is a wish: the camera takes the nearest that it has.

    Raises:
        CameraError: OpenCV takes no such number or path.
    """
    shown = without_secrets(str(device))
    # OpenCV crashes on a text that is not Unicode, such as a file name that is not UTF-8.
    if not (is_unicode(device) if isinstance(device, str) else device <= _MAX_DEVICE):
        raise CameraError(
            f"unknown camera usb:{escaped(shown)}", hint="use usb:0, or a path of which all is UTF-8"
        )
    name = shown if scheme_of(shown) else f"usb:{shown}"
    subject = f"camera {name}"
    return DriverCamera(lambda: _OpenCv(device, shot, subject), subject=subject, source=name)


def picamera(shot: Shot = Shot()) -> DriverCamera:  # frozen
    """Return the camera of a Raspberry Pi; without a size its full resolution is taken."""
    return DriverCamera(lambda: _Picamera(shot), subject="camera picamera", source="picamera")


class _OpenCv:
    def __init__(self, device: int | str, shot: Shot, subject: str) -> None:
        self._device = device
        self._shot = shot
        self._subject = subject
        self._is_stream = bool(scheme_of(str(device)))
        self._is_timed = scheme_of(str(device)) in _TIMED
        self._hint = _CHECK_STREAM if self._is_stream else _CHECK_DEVICE
        self._opened: Any = None
        self._lag = LagMeter()
        self._has_lagged = False

    @property
    def continuous(self) -> bool:
        """True for cameras and streams; False for files, which wait."""
        local = isinstance(self._device, int) or Path(self._device).is_char_device()
        return local or self._is_stream

    def open(self) -> None:
        """Open the device."""
        # FFmpeg would print its own lines to stderr. OpenCV reads this variable when it first opens a stream.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)
        try:
            import cv2  # noqa: PLC0415  # tens of megabytes that only this camera needs
        except ImportError:
            raise CameraError(
                f"{self._subject} needs OpenCV", hint=f"install it with: {install_command('usb')}"
            ) from None
        # OpenCV prints its warnings to stderr; the failure itself is raised below as one sentence.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._cv2 = cv2
        self._opened = cv2.VideoCapture(self._device, *self._backend())
        if not self._opened.isOpened():
            raise CameraError(f"{self._subject} cannot be opened", hint=self._hint)
        self._lag = LagMeter()
        if not self._is_stream:
            self._configure()
        elif self._is_timed:
            self._skip_queued()

    def _backend(self) -> tuple[int, list[int]] | tuple[()]:
        if not self._is_stream:
            return ()
        # Below our own timeouts: a camera that is switched off is not a driver that hangs.
        timeouts = {
            self._cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_S - 2,
            self._cv2.CAP_PROP_READ_TIMEOUT_MSEC: CAPTURE_TIMEOUT_S - 2,
        }
        return self._cv2.CAP_FFMPEG, [
            value for name, timeout_s in timeouts.items() for value in (name, int(timeout_s * 1000))
        ]

    def _configure(self) -> None:
        self._opened.set(self._cv2.CAP_PROP_BUFFERSIZE, 1)
        if self._shot.size is not None:
            # Uncompressed video of most USB cameras ends at 640 x 480.
            self._opened.set(self._cv2.CAP_PROP_FOURCC, self._cv2.VideoWriter.fourcc(*"MJPG"))
            self._opened.set(self._cv2.CAP_PROP_FRAME_WIDTH, self._shot.size[0])
            self._opened.set(self._cv2.CAP_PROP_FRAME_HEIGHT, self._shot.size[1])

    def _skip_queued(self) -> None:
        """Read the frames that queued up while FFmpeg examined the stream: the next one is new.

        They arrive faster than they were taken. A machine that decodes more slowly ends this by time.
        """
        end = time.monotonic() + _SKIP_S
        self._grab()
        taken_s, read_at = self._position_s(), time.monotonic()
        while read_at < end:
            before = taken_s, read_at
            self._grab()
            taken_s, read_at = self._position_s(), time.monotonic()
            # The first two frames of some streams have the same time.
            if 0 < taken_s - before[0] <= 2 * (read_at - before[1]):
                return

    def grab(self) -> float:
        """Wait for the next frame; open a stream again whose frames are too late."""
        age_s = self._grab()
        if age_s > MAX_LAG_S:
            # A machine that decodes more slowly than frames come would fall behind without end.
            level = log.debug if self._has_lagged else log.warning
            level("camera.lagging", camera=self._subject, lag_s=round(age_s, 1))
            self._has_lagged = True
            self.close()
            self.open()
            age_s = self._grab()
        return age_s

    def _grab(self) -> float:
        try:
            delivered = self._opened.grab()
        except self._cv2.error:
            delivered = False
        if not delivered:
            raise CameraError(f"{self._subject} delivered no frame", hint=self._hint)
        return self._lag.lag_s(self._position_s(), time.monotonic()) if self._is_timed else 0.0

    def _position_s(self) -> float:
        """Return the time of the frame in the stream."""
        position_ms: float = self._opened.get(self._cv2.CAP_PROP_POS_MSEC)
        return position_ms / 1000

    def encode(self) -> bytes:
        """Decode the frame and return it as JPEG."""
        try:
            delivered, pixels = self._opened.retrieve()
        except self._cv2.error:
            delivered = False
        if not delivered:
            raise CameraError(f"{self._subject} delivered no frame", hint=self._hint)
        quality = [self._cv2.IMWRITE_JPEG_QUALITY, self._shot.quality]
        image: bytes = self._cv2.imencode(".jpg", pixels, quality)[1].tobytes()
        return image

    def close(self) -> None:
        """Release the device."""
        if self._opened is not None:
            self._opened.release()


class _Picamera:
    # A capture delivers the frame that is exposed next, so nothing has to be read in between.
    continuous = False

    def __init__(self, shot: Shot) -> None:
        self._shot = shot
        self._opened: Any = None

    def open(self) -> None:
        """Open and start the camera."""
        try:
            from picamera2 import Picamera2  # noqa: PLC0415  # only a Raspberry Pi has it
        except ImportError:
            raise CameraError("camera picamera needs Picamera2", hint=_INSTALL_PICAMERA) from None
        self._opened = Picamera2()
        # Scaled by the camera's own hardware, from the whole sensor.
        main = {} if self._shot.size is None else {"main": {"size": self._shot.size}}
        self._opened.options["quality"] = self._shot.quality
        self._opened.configure(self._opened.create_still_configuration(**main))
        self._opened.start()

    def grab(self) -> float:
        """Do nothing: `encode` waits for the frame."""
        return 0.0

    def encode(self) -> bytes:
        """Take a photo as JPEG."""
        out = io.BytesIO()
        self._opened.capture_file(out, format="jpeg")
        return out.getvalue()

    def close(self) -> None:
        """Stop the camera."""
        if self._opened is not None:
            self._opened.close()
