"""Cameras behind one Protocol: a folder of photos, drawn pets, a USB camera, a Raspberry Pi's own.

What blocks (disk, drawing, a driver) runs in a thread. `open_camera` reads the value of `--camera`.
"""

import asyncio
import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import parse_qsl

from PIL import Image, ImageChops, ImageStat

from schemas.errors import PermanentError

T = TypeVar("T")

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_CAPTURE_S = 20.0
_JPEG_QUALITY = 90
_THUMBNAIL = (64, 48)
_ACCEPTED = (
    "folder:DIR[?loop=1&shuffle=SEED&part=0/3], drawn[?seed=3&look=dusk&count=100], usb:0, usb:/dev/video0 "
    "or picamera"
)
_PICAMERA = "Picamera2: sudo apt install python3-picamera2, and a venv with --system-site-packages"


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
        chosen = files[part[0] :: part[1]]
        return _read(itertools.cycle(chosen) if loop and chosen else iter(chosen), labelled=labelled)

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


def _read(files: Iterator[Path], *, labelled: bool) -> Iterator[Frame]:
    """Read one file after the other; after one that cannot be read, the next call goes on with the next."""

    def frame(file: Path) -> Frame | None:
        try:
            image = file.read_bytes()
        except OSError as error:
            raise CameraError(f"photo {file}", expected="a readable file", got=error.strerror) from None
        return Frame(image, str(file), file.parent.name if labelled else None) if image else None

    return filter(None, map(frame, files))


def drawn_camera(*, seed: int = 0, look: str = "daylight", count: int | None = None) -> Camera:
    """Return a camera that draws cats and dogs without end, or `count` of them.

    Args:
        seed: Of the pictures; the same seed draws the same ones.
        look: The camera's character.
        count: How many to draw.
    """
    from device.drawn import CLASSES, LOOKS, draw, seed_of  # noqa: PLC0415  # only this camera draws

    if look not in LOOKS:
        raise CameraError("camera drawn", expected=f"a look of {', '.join(LOOKS)}", got=look)

    def frames() -> Iterator[Frame]:
        numbers = itertools.count() if count is None else range(count)
        chance = random.Random(seed)  # noqa: S311  # which pet comes next is no secret
        for number in numbers:
            label = chance.choice(CLASSES)
            image = draw(label, seed_of("camera", seed, number), LOOKS[look])
            yield Frame(image, f"drawn:{label}-{number:05d}", label)

    return _Replay(frames, "camera drawn")


class OpenCvCamera:
    """A USB camera, or a stream that OpenCV can read; it is opened again after a failure."""

    live = True

    def __init__(self, device: int | str) -> None:
        self._device = device
        self._capture: Any = None

    async def __aenter__(self) -> Self:
        """Open it."""
        await _in_thread(self._open, f"camera usb:{self._device}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        if self._capture is not None:
            await asyncio.to_thread(self._capture.release)

    async def capture(self) -> Frame:
        """Take a photo as JPEG of quality 90."""
        return await _in_thread(self._take, f"camera usb:{self._device}")

    def _open(self) -> None:
        try:
            import cv2  # noqa: PLC0415  # tens of megabytes that only this camera needs
        except ImportError:
            raise CameraError(
                f"camera usb:{self._device}", expected="OpenCV: pip install 'gleaner[usb]'", got="no cv2"
            ) from None
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(self._device)
        if not self._capture.isOpened():
            self._capture.release()
            self._capture = None
            raise CameraError(f"camera usb:{self._device}", expected="a camera that opens", got="none")

    def _take(self) -> Frame:
        if self._capture is None:
            self._open()
        there, pixels = self._capture.read()
        if not there:
            self._capture.release()
            self._capture = None
            raise CameraError(f"camera usb:{self._device}", expected="a frame", got="none; is it plugged in?")
        quality = [self._cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, encoded = self._cv2.imencode(".jpg", pixels, quality)
        return Frame(encoded.tobytes(), f"usb:{self._device}")


class PicameraCamera:
    """The camera of a Raspberry Pi, through Picamera2."""

    live = True

    def __init__(self) -> None:
        self._camera: Any = None

    async def __aenter__(self) -> Self:
        """Open and start it."""
        await _in_thread(self._open, "camera picamera")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        if self._camera is not None:
            await asyncio.to_thread(self._camera.close)

    async def capture(self) -> Frame:
        """Take a photo as JPEG."""
        return await _in_thread(self._take, "camera picamera")

    def _open(self) -> None:
        try:
            from picamera2 import Picamera2  # noqa: PLC0415  # exists on a Raspberry Pi alone
        except ImportError:
            raise CameraError("camera picamera", expected=_PICAMERA, got="no picamera2") from None
        self._camera = Picamera2()
        self._camera.configure(self._camera.create_still_configuration())
        self._camera.start()

    def _take(self) -> Frame:
        out = io.BytesIO()
        self._camera.capture_file(out, format="jpeg")
        return Frame(out.getvalue(), "picamera")


async def _in_thread(work: Callable[[], T], subject: str) -> T:
    """Run a driver's call in a thread, with a deadline: a driver that hangs is an error and not a wait."""
    try:
        async with asyncio.timeout(_CAPTURE_S):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise CameraError(subject, expected=f"an answer within {_CAPTURE_S:g} s", got="none") from None
    except (OSError, RuntimeError) as error:
        raise CameraError(subject, expected="to work", got=error) from None


def open_camera(spec: str) -> Camera:
    """Return the camera that a command line describes; it is opened by `async with`.

    Raises:
        CameraError: The description is none of those that it lists.
    """
    kind, colon, rest = spec.partition(":")
    place, _, query = (rest if colon else kind).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not colon:
        kind = kind.partition("?")[0]
    try:
        if kind == "folder" and place:
            return _folder(Path(place), options)
        if kind == "drawn" and not colon:
            return _drawn(options)
        if kind == "usb" and place and not options:
            return OpenCvCamera(int(place) if place.isdecimal() else place)
        if spec == "picamera":
            return PicameraCamera()
        if Path(spec).is_dir():
            return folder_camera(Path(spec))
    except (ValueError, KeyError) as error:
        raise CameraError(f"camera {spec!r}", expected=_ACCEPTED, got=error) from None
    raise CameraError(f"camera {spec!r}", expected=_ACCEPTED, got="something else")


def _folder(directory: Path, options: dict[str, str]) -> Camera:
    index, _, count = options.pop("part", "0/1").partition("/")
    part = int(index), int(count)
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"part {index}/{count}: expected i/n with i below n")
    loop = {"0": False, "1": True}[options.pop("loop", "0")]
    shuffle = options.pop("shuffle", None)
    if options:
        raise ValueError(f"unknown option {sorted(options)}")
    return folder_camera(directory, loop=loop, shuffle=None if shuffle is None else int(shuffle), part=part)


def _drawn(options: dict[str, str]) -> Camera:
    seed, look = int(options.pop("seed", "0")), options.pop("look", "daylight")
    count = int(options["count"]) if "count" in options else None
    options.pop("count", None)
    if options:
        raise ValueError(f"unknown option {sorted(options)}")
    return drawn_camera(seed=seed, look=look, count=count)


def motion(previous: bytes, current: bytes) -> float:
    """Return how much two frames differ: mean absolute difference of 64 x 48 grey thumbnails, 0 to 1."""
    difference = ImageChops.difference(_thumbnail(previous), _thumbnail(current))
    mean: float = ImageStat.Stat(difference).mean[0]
    return mean / 255


def _thumbnail(image: bytes) -> Image.Image:
    with Image.open(io.BytesIO(image)) as picture:
        picture.draft("L", _THUMBNAIL)
        return picture.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
