import io
import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from device.cameras.base import CameraError, motion
from device.cameras.hardware import Shot, opencv_camera, picamera
from tests.conftest import jpeg


@pytest.fixture
def video(tmp_path):
    """A video of three grey frames."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    for shade in (40, 120, 200):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    return path


def shade(image: bytes) -> int:
    with Image.open(io.BytesIO(image)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (64, 48)
        return round(np.asarray(picture).mean())


async def test_opencv_delivers_jpeg_and_reopens_after_a_failure(video):
    """Each capture is the next frame as JPEG; the first capture after a failure reopens the camera."""
    async with opencv_camera(str(video)) as camera:
        assert camera.live
        shades = [shade((await camera.capture()).image) for _ in range(3)]
        assert shades == pytest.approx([40, 120, 200], abs=4)
        with pytest.raises(CameraError, match="delivered no frame"):
            await camera.capture()
        assert (await camera.capture()).source == f"usb:{video}"


async def test_opencv_reads_a_sequence_of_images(tmp_path):
    """Numbered files are read as a stream."""
    for number in range(2):
        (tmp_path / f"{number:03d}.jpg").write_bytes(jpeg(number))
    async with opencv_camera(str(tmp_path / "%03d.jpg")) as camera:
        assert motion((await camera.capture()).image, jpeg(0)) < 0.05
        assert motion((await camera.capture()).image, jpeg(1)) < 0.05


@pytest.mark.parametrize("device", [97, "/nowhere/video.avi"])
async def test_a_missing_usb_camera_is_an_error(device):
    """The error names the camera."""
    with pytest.raises(CameraError, match=f"camera usb:{device} cannot be opened"):
        async with opencv_camera(device):
            pass


async def test_without_opencv_the_error_says_how_to_install_it(monkeypatch):
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(CameraError, match=r"pip install .*\[usb\]"):
        async with opencv_camera(0):
            pass


async def test_without_picamera_the_error_says_how_to_install_it():
    """The error names the Debian package."""
    with pytest.raises(CameraError, match="sudo apt install python3-picamera2"):
        async with picamera():
            pass


class FakePicamera2:
    """The part of Picamera2 that the camera uses; the library exists only for the Raspberry Pi."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.options: dict[str, int] = {}

    def create_still_configuration(self, **streams: object) -> object:
        return streams or "still"

    def configure(self, what: object) -> None:
        self.calls.append(what)

    def start(self) -> None:
        self.calls.append("start")

    def capture_file(self, out: io.BytesIO, format: str) -> None:  # noqa: A002  # the name in Picamera2
        assert format == "jpeg"
        out.write(jpeg(3, quality=self.options.get("quality", 90)))  # 90 is the library's default

    def close(self) -> None:
        self.calls.append("close")


async def test_picamera_takes_stills_and_is_closed(monkeypatch):
    """Picamera2 is configured for stills, started, asked for JPEG and closed."""
    module = FakePicamera2()
    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=lambda: module))
    async with picamera() as camera:
        assert (await camera.capture()).image == jpeg(3, quality=90)
    assert module.calls == ["still", "start", "close"]


async def test_picamera_is_asked_for_size_and_quality(monkeypatch):
    """The hardware scales, and JPEG has the quality that `--quality` names."""
    module = FakePicamera2()
    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=lambda: module))
    async with picamera(Shot((640, 480), 40)) as camera:
        assert (await camera.capture()).image == jpeg(3, quality=40)
    assert module.calls == [{"main": {"size": (640, 480)}}, "start", "close"]


async def test_a_usb_camera_is_asked_for_size_and_quality(monkeypatch, video):
    """The size in MJPEG, because most cameras deliver no large picture without it."""
    asked, real = {}, cv2.VideoCapture

    class Recorded:
        def __init__(self, *words: object) -> None:
            self._capture = real(*words)

        def set(self, name: int, value: float) -> bool:
            asked[name] = value
            return self._capture.set(name, value)

        def __getattr__(self, name: str) -> object:
            return getattr(self._capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Recorded)
    lengths = []
    for quality in (20, 95):
        async with opencv_camera(str(video), Shot((640, 480), quality)) as camera:
            await camera.capture()
            lengths.append(len((await camera.capture()).image))
    assert (asked[cv2.CAP_PROP_FRAME_WIDTH], asked[cv2.CAP_PROP_FRAME_HEIGHT]) == (640, 480)
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert lengths[0] < lengths[1]


async def test_picamera_without_a_camera_is_an_error(monkeypatch):
    """The IndexError that Picamera2 raises without a camera becomes a CameraError."""

    def none() -> None:
        raise IndexError("list index out of range")

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=none))
    with pytest.raises(CameraError, match="camera picamera failed: list index"):
        async with picamera():
            pass
