"""Cameras without hardware: a folder of photos, and drawn pets. They wait for whoever takes their frames."""

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from device.cameras.base import Camera, CameraError, CameraExhausted, Frame

log = structlog.get_logger()

_SUFFIXES = {".jpg", ".jpeg", ".png"}


class _Replay:
    """Frames that are read or made one after the other, in a thread."""

    live = False

    def __init__(self, frames: Callable[[], Iterator[Frame]], subject: str) -> None:
        self._make = frames
        self._subject = subject

    async def __aenter__(self) -> Self:
        self._frames = await asyncio.to_thread(self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def capture(self) -> Frame:
        frame = await asyncio.to_thread(next, self._frames, None)
        if frame is None:
            raise CameraExhausted(self._subject, expected="another photo", got="the end")
        return frame


def folder_camera(
    directory: Path, *, loop: bool = False, shuffle: int | None = None, part: tuple[int, int] = (0, 1)
) -> Camera:
    """Return a camera that replays the JPEG and PNG files below a folder, byte for byte.

    A file that is empty or cannot be read is left out with a warning.

    Args:
        directory: Hidden files and folders are left out; the name of a photo's folder is its label if there
            are several such folders.
        loop: Begin again at the end.
        shuffle: Seed of the order; sorted by path if None.
        part: Take each n-th photo, `(i, n)`, so that several agents share a folder.
    """

    def frames() -> Iterator[Frame]:
        files = photo_files(directory)
        if not files:
            raise CameraError(f"folder {directory}", expected="JPEG or PNG files", got="none")
        labelled = len({file.parent for file in files}) > 1
        if shuffle is not None:
            random.Random(shuffle).shuffle(files)  # noqa: S311  # an order of photos is no secret
        return _replayed(files[part[0] :: part[1]], loop=loop, labelled=labelled)

    return _Replay(frames, f"folder {directory}")


def photo_files(directory: Path) -> list[Path]:
    """Return the JPEG and PNG files below a folder, sorted; links to folders are not followed.

    Raises:
        CameraError: It is no folder.
    """
    if not directory.is_dir():
        raise CameraError(f"folder {directory}", expected="a folder of photos", got="none there")
    files = []
    for place, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES
        ]
    return sorted(files)


def _replayed(files: Sequence[Path], *, loop: bool, labelled: bool) -> Iterator[Frame]:
    """Read one file after the other; a round that yields nothing is the last."""
    found = True
    while found:
        found = False
        for file in files:
            if image := _read(file):
                found = loop
                yield Frame(image, str(file), file.parent.name if labelled else None)


def _read(file: Path) -> bytes:
    """Return a file's bytes, none if it cannot be used."""
    try:
        image = file.read_bytes()
    except OSError as error:
        log.warning("photo.skipped", file=str(file), reason=error.strerror)
        return b""
    if not image:
        log.warning("photo.skipped", file=str(file), reason="it is empty")
    return image


def drawn_camera(*, seed: int = 0, look: str = "daylight", count: int | None = None) -> Camera:
    """Return a camera that draws cats and dogs without end, or `count` of them.

    Args:
        seed: Of the pictures; the same seed draws the same ones.
        look: The camera's character.
        count: How many to draw.

    Raises:
        CameraError: There is no such look.
    """
    from device.cameras.synthetic import CLASSES, LOOKS, draw, seed_of  # noqa: PLC0415  # only this camera draws

    if look not in LOOKS:
        raise CameraError("camera drawn", expected=f"a look of {', '.join(LOOKS)}", got=look)

    def frames() -> Iterator[Frame]:
        chance = random.Random(seed)  # noqa: S311  # which pet comes next is no secret
        for number in itertools.count() if count is None else range(count):
            label = chance.choice(CLASSES)
            image = draw(label, seed_of("camera", seed, number), LOOKS[look])
            yield Frame(image, f"drawn:{label}-{number:05d}", label)

    return _Replay(frames, "camera drawn")
