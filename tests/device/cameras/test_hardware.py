import io
import sys
import threading
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from device.cameras import hardware
from device.cameras.base import CameraError, motion
from device.cameras.hardware import OpenCvCamera, PicameraCamera
from tests.conftest import jpeg


@pytest.fixture
def video(tmp_path):
    """A film of three grey frames."""
    path = tmp_path / "film.avi"
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


async def test_opencv_delivers_jpeg_and_recovers_from_the_end(video):
    """Each capture is the next frame as JPEG; a failure is said, and the camera is opened again."""
    async with OpenCvCamera(str(video)) as camera:
        assert camera.live
        shades = [shade((await camera.capture()).image) for _ in range(3)]
        assert shades == pytest.approx([40, 120, 200], abs=4)
        with pytest.raises(CameraError, match="expected a frame, got none"):
            await camera.capture()
        assert (await camera.capture()).source == f"usb:{video}"


async def test_opencv_reads_a_sequence_of_images(tmp_path):
    """Photos that are numbered in a folder are a stream as well."""
    for number in range(2):
        (tmp_path / f"{number:03d}.jpg").write_bytes(jpeg(number))
    async with OpenCvCamera(str(tmp_path / "%03d.jpg")) as camera:
        assert motion((await camera.capture()).image, jpeg(0)) < 0.05
        assert motion((await camera.capture()).image, jpeg(1)) < 0.05


@pytest.mark.parametrize("device", [97, "/nowhere/film.avi"])
async def test_a_usb_camera_that_is_not_there_is_said(device):
    """No such camera is one sentence with its name."""
    with pytest.raises(CameraError, match=f"camera usb:{device}: expected a camera that opens, got none"):
        async with OpenCvCamera(device):
            pass


async def test_without_opencv_the_sentence_says_how_to_get_it(monkeypatch):
    """A device without the `usb` extra is told which one to install."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(CameraError, match=r"pip install 'gleaner\[usb\]'"):
        async with OpenCvCamera(0):
            pass


async def test_without_picamera_the_sentence_says_how_to_get_it():
    """Anywhere but on a Raspberry Pi the camera says what it needs."""
    with pytest.raises(CameraError, match="sudo apt install python3-picamera2"):
        async with PicameraCamera():
            pass


class RaspberryPi:
    """What a Raspberry Pi's library answers, as far as the camera asks: this machine cannot have it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def create_still_configuration(self) -> str:
        return "still"

    def configure(self, what: str) -> None:
        self.said.append(what)

    def start(self) -> None:
        self.said.append("start")

    def capture_file(self, out: io.BytesIO, format: str) -> None:  # noqa: A002  # Picamera2's own word
        assert format == "jpeg"
        out.write(jpeg(3))

    def close(self) -> None:
        self.said.append("close")


async def test_picamera_takes_stills_and_is_closed(monkeypatch):
    """The library is configured for stills, started, asked for JPEG and closed."""
    module = RaspberryPi()
    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=lambda: module))
    async with PicameraCamera() as camera:
        assert (await camera.capture()).image == jpeg(3)
    assert module.said == ["still", "start", "close"]


async def test_no_camera_on_the_ribbon_is_said(monkeypatch):
    """Picamera2 finds an empty list of cameras: that is a sentence and no traceback."""

    def none() -> None:
        raise IndexError("list index out of range")

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=none))
    with pytest.raises(CameraError, match="camera picamera: expected to work"):
        async with PicameraCamera():
            pass


async def test_a_driver_that_hangs_is_an_error_and_not_a_wait(monkeypatch):
    """After its deadline the call fails; the next one never runs beside the one that hangs."""
    monkeypatch.setattr(hardware, "_CAPTURE_S", 0.05)
    driver, freed, inside = hardware._Driver("camera x"), threading.Event(), []

    def hang() -> None:
        inside.append("hang")
        assert freed.wait(30)
        inside.append("free")

    for work in (hang, lambda: inside.append("next")):
        with pytest.raises(CameraError, match=r"got none within 0.05 s"):
            await driver.call(work)
    assert inside == ["hang"]
    freed.set()
    monkeypatch.setattr(hardware, "_CAPTURE_S", 20.0)
    await driver.call(lambda: inside.append("later"))
    assert inside == ["hang", "free", "later"]
    driver.close()
