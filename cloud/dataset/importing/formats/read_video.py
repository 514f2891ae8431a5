"""Sample frames of a video file or a stream, all with one label; needs OpenCV, the extra `usb`."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cloud.dataset.importing.entry import Entry, file_item
from cloud.progress import NoProgress, Progress
from schemas.distribution import install_command
from schemas.errors import PermanentError
from schemas.text import escaped, is_unicode, without_secrets

_STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://")

_JPEG_QUALITY = 92
_DEADLINE_S = 3600.0
_OPEN_TIMEOUT_S = 20.0
_READ_TIMEOUT_S = 10.0
_QUIET = "-8"  # AV_LOG_QUIET


class VideoOptions(NamedTuple):
    """How to sample a video.

    Attributes:
        label: Class of all frames.
        every_s: Seconds between two frames: of a video file by its own time, of a stream by the clock.
        max_frames: Most frames; a stream ends with them, or after an hour.
    """

    label: str | None
    every_s: float = 1.0
    max_frames: int = 1000


def is_stream(source: str) -> bool:
    """Return True for the URL of a stream."""
    return source.lower().startswith(_STREAM_SCHEMES)


def video_entries(
    source: str, folder: Path, options: VideoOptions, progress: Progress | None = None
) -> list[Entry]:
    """Sample a video into JPEG files, and list them.

    A frame of a file is named by its time in the video, one of a stream by date and time. A stream that is
    silent for ten seconds has ended. User, password and query of a URL are in no name and no error.

    Args:
        source: File or URL.
        folder: Where the frames are written.
        options: How to sample it.
        progress: Advances by frames.

    Raises:
        PermanentError: There is no label, OpenCV is not installed, the source cannot be opened, or it has
            no frame.
    """
    shown = escaped(without_secrets(source))
    if options.label is None:
        raise PermanentError(f"cannot import {shown}: a video has no class names", hint="use --label CLASS")
    if not is_unicode(source):
        raise PermanentError(f"cannot import {shown}: OpenCV takes no name that is not UTF-8")
    cv2, progress = _opencv(), progress or NoProgress()
    progress.start("sample frames", options.max_frames)
    entries: list[Entry] = []
    capture = _opened(cv2, source)
    try:
        for name, frame in _sampled(cv2, capture, source, options):
            path = folder / f"{len(entries):06d}.jpg"
            cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            entries.append(file_item(path, name, options.label))
            progress.advance()
            if len(entries) == options.max_frames:
                break
    finally:
        capture.release()
    if not entries:
        raise PermanentError(f"cannot import {shown}: it has no frame that can be decoded")
    return entries


def _opened(cv2: ModuleType, source: str) -> Any:  # OpenCV has no types
    limits: tuple[Any, ...] = ()
    if is_stream(source):
        # Without limits OpenCV would wait half a minute for each silence.
        timeouts = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: _OPEN_TIMEOUT_S,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: _READ_TIMEOUT_S,
        }
        limits = (
            cv2.CAP_FFMPEG,
            [value for name, limit_s in timeouts.items() for value in (name, int(limit_s * 1000))],
        )
    capture = cv2.VideoCapture(source, *limits)
    if not capture.isOpened():
        hint = "check address, user and password, and that the camera answers"
        if not limits:
            hint = "check that a player shows it; convert it to MP4 (H.264), or copy it again"
        raise PermanentError(
            f"cannot import {escaped(without_secrets(source))}: OpenCV cannot open it", hint=hint
        )
    return capture


def _sampled(
    cv2: ModuleType,
    capture: Any,
    source: str,
    options: VideoOptions,
) -> Iterator[tuple[str, Any]]:
    """Yield a frame with its name each `every_s`, until the video ends."""
    began = time.monotonic()
    position, name_of = _clock(cv2, capture, source, began)
    next_s = 0.0
    while time.monotonic() - began < _DEADLINE_S and capture.grab():
        at_s = position()
        if at_s < next_s:
            continue
        decoded, frame = capture.retrieve()
        if decoded:
            yield name_of(at_s), frame
        next_s = at_s + options.every_s


def _clock(
    cv2: ModuleType,
    capture: Any,
    source: str,
    began: float,
) -> tuple[Callable[[], float], Callable[[float], str]]:
    """Return a function for the time of the present frame in seconds, and one that names a frame."""
    if not is_stream(source):
        file = Path(source).name
        return lambda: capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, lambda at_s: f"{file}@{at_s:.1f}s"
    # For a stream without timestamps, such as MJPEG, OpenCV counts frames at a rate that it assumes.
    url = without_secrets(source)
    return lambda: time.monotonic() - began, lambda _: f"{url}@{_now()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _opencv() -> ModuleType:
    # FFmpeg would print its own lines to stderr. OpenCV reads this variable when it first opens a stream.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)
    try:
        import cv2  # noqa: PLC0415  # optional
    except ImportError:
        raise PermanentError("videos need OpenCV", hint=install_command("usb")) from None
    # OpenCV prints its warnings to stderr; a failure is raised as one sentence.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
