"""Cameras that replay frames: the photos of a folder, or those of any iterator."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from bus.files.regular_file import read_regular
from device.cameras.base import Camera, CameraError, CameraExhausted, Frame
from schemas.pixels import SOURCE_LIMITS
from schemas.text import escaped, listed

log = structlog.get_logger()

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_CONVERTED = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".mpo", ".tif", ".tiff", ".webp"}
)
"""Of files that the device converts to JPEG before it sends them."""
_PHOTOS = "put some there: JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF, or HEIC with the extra heic"


class ReplayCamera:
    """Camera over an iterator of frames, which is created and advanced in a thread.

    Args:
        frames: Called when the camera is opened; creates the iterator.
        subject: Name of the camera in errors.
    """

    live = False

    def __init__(self, frames: Callable[[], Iterator[Frame]], subject: str) -> None:
        self._make = frames
        self._subject = subject

    async def __aenter__(self) -> Self:
        """Create the iterator."""
        self._frames = await asyncio.to_thread(self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: there is nothing to close."""
        return

    async def capture(self) -> Frame:
        """Return the next frame.

        Raises:
            CameraExhausted: There are no more.
        """
        # A default instead of StopIteration: a Future cannot carry that exception out of the thread.
        frame = await asyncio.to_thread(next, self._frames, None)
        if frame is None:
            raise CameraExhausted(f"{self._subject} has no more photos")
        return frame


def folder_camera(
    directory: Path, *, loop: bool = False, shuffle: int | None = None, part: tuple[int, int] = (0, 1)
) -> Camera:
    """Return a camera that replays the pictures below a folder, byte for byte.

    What is empty, too large, no regular file or cannot be read is skipped with a warning.

    Args:
        directory: Hidden files and folders are skipped. If the photos are in several folders, the name of a
            photo's folder is its label.
        loop: Start again at the end.
        shuffle: Seed of the order; sorted by path if None.
        part: `(i, n)`: take every n-th photo from the i-th on, so that n agents share a folder.
    """

    def frames() -> Iterator[Frame]:
        files = photo_files(directory, _SUFFIXES | _CONVERTED)
        if not files:
            raise CameraError(f"no photos in {directory}{_others(directory)}", hint=_PHOTOS)
        labelled = len({file.parent for file in files}) > 1
        # Shuffle before the split: agents with the same seed then take disjoint parts of the same order.
        if shuffle is not None:
            random.Random(shuffle).shuffle(files)  # noqa: S311  # an order of photos is not secret
        return _replayed(files[part[0] :: part[1]], loop=loop, labelled=labelled)

    return ReplayCamera(frames, f"folder {directory}")


def _others(directory: Path) -> str:
    """Return which other files a folder without photos has, such as videos; nothing if it is empty."""
    names = sorted(name for _, _, names in os.walk(directory) for name in names if not name.startswith("."))
    return f", only {listed([escaped(name) for name in names], 2)}" if names else ""


def photo_files(directory: Path, suffixes: frozenset[str] = _SUFFIXES) -> list[Path]:
    """Return the JPEG and PNG files below a folder, sorted; links to folders are not followed.

    Args:
        directory: Hidden files and folders in it are skipped.
        suffixes: Those of the files, in lower case.

    Raises:
        CameraError: The folder does not exist.
    """
    if directory.is_file():
        raise CameraError(f"{directory} is a file", hint="name its folder")
    if not directory.is_dir():
        raise CameraError(f"there is no folder {directory}", hint="check the path")
    files = []
    for parent, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]  # in place: os.walk reads it
        files += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(files)


def _replayed(files: Sequence[Path], *, loop: bool, labelled: bool) -> Iterator[Frame]:
    """Yield the frame of each file, over and over if `loop` is set."""
    again = True
    while again:
        again = False
        for file in files:
            if image := _read(file):
                again = loop  # only after a usable file: a loop over none would never yield and never end
                yield Frame(image, str(file), file.parent.name if labelled else None)


def _read(file: Path) -> bytes:
    """Return the bytes of a file; empty if it cannot be used."""
    try:
        image = read_regular(file, SOURCE_LIMITS.max_bytes)
    except OSError as error:
        log.warning("photo.skipped", file=str(file), reason=error.strerror)
        return b""
    if not image:
        log.warning("photo.skipped", file=str(file), reason="empty file")
    return image
