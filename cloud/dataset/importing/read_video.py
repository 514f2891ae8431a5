"""Sample frames of a video file or a stream, all with one label; needs OpenCV, the extra `usb`."""

import time
from pathlib import Path
from types import ModuleType

from cloud.dataset.importing.entry import Entry, file_item
from schemas.distribution import install_command
from schemas.errors import PermanentError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
STREAM_SCHEMES = ("rtsp://", "http://", "https://")

_JPEG_QUALITY = 92
_DEADLINE_S = 3600.0


def video_entries(
    source: str, folder: Path, label: str | None, *, every_s: float, max_frames: int
) -> list[Entry]:
    """Sample a video into JPEG files, and list them.

    Args:
        source: File or URL.
        folder: Where the frames are written.
        label: Class of all frames.
        every_s: Seconds of the video between two frames.
        max_frames: Most frames; a stream ends with them, or after an hour.

    Raises:
        PermanentError: There is no label, OpenCV is not installed, or the source cannot be opened.
    """
    if label is None:
        raise PermanentError(f"cannot import {source}: a video has no class names", hint="use --label CLASS")
    cv2 = _opencv()
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise PermanentError(f"cannot import {source}: OpenCV cannot open it")
    entries: list[Entry] = []
    next_ms, ends_at = 0.0, time.monotonic() + _DEADLINE_S
    try:
        while len(entries) < max_frames and time.monotonic() < ends_at:
            if not capture.grab():
                break
            at_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            if at_ms < next_ms:
                continue
            decoded, frame = capture.retrieve()
            if decoded:
                path = folder / f"{len(entries):06d}.jpg"
                cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                entries.append(file_item(path, f"{Path(source).name}@{at_ms / 1000:.1f}s", label))
            next_ms = at_ms + every_s * 1000
    finally:
        capture.release()
    return entries


def _opencv() -> ModuleType:
    try:
        import cv2  # noqa: PLC0415  # optional
    except ImportError:
        raise PermanentError("videos need OpenCV", hint=install_command("usb")) from None
    return cv2
