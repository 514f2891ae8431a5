"""RTSP cameras that misbehave, read by OpenCV's FFmpeg; `test_rtsp.py` has another maker's server."""

import io
import time
from urllib.parse import quote

import pytest
from PIL import Image

from device.cameras import hardware
from device.cameras.base import CameraError, Frame
from device.cameras.factory import open_camera
from tests.conftest import DEADLINE_S, eventually
from tests.device.cameras.rtsp_stand_in import RtspCamera, number_of, rtsp_camera


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    """A camera that is silent fails after a second."""
    monkeypatch.setattr(hardware, "CAPTURE_TIMEOUT_S", 3.0)
    monkeypatch.setattr(hardware, "OPEN_TIMEOUT_S", 3.0)


def address(camera: RtspCamera, login: str = "") -> str:
    return f"rtsp://{login}127.0.0.1:{camera.server_address[1]}/live?channel=1&subtype=0"


async def again(opened, allowed: int = 3) -> Frame:
    """Take a photo; the camera may say a few times that there is none."""
    for _ in range(allowed):
        try:
            return await opened.capture()
        except CameraError:
            continue
    return await opened.capture()


async def test_each_photo_is_a_frame_that_was_sent_after_it_was_asked_for():
    """Also after a pause in which a hundred frames queued up."""
    with rtsp_camera() as camera:
        async with open_camera(address(camera)) as opened:
            for more in (0, 20, 100):
                wanted = camera.sent + more
                await eventually(lambda wanted=wanted: camera.sent >= wanted)
                before = camera.sent
                number = number_of((await opened.capture()).image)
                # Sent or on its way at that moment, and not one of those before.
                assert (number - before) % 1024 < 512, (before, number)


@pytest.mark.parametrize("trouble", ["silent", "cut"])
async def test_a_stream_that_stops_or_breaks_in_a_frame_is_opened_anew(trouble):
    """A camera that is silent with its connection open, or cut in the middle of a frame, costs one photo."""
    with rtsp_camera() as camera:
        async with open_camera(address(camera)) as opened:
            await opened.capture()
            fault = getattr(camera, trouble)
            fault.set()
            await eventually(opened._thread.ended.done)
            fault.clear()
            photo = await again(opened)
            assert camera.plays == 2
            with Image.open(io.BytesIO(photo.image)) as picture:
                assert picture.size == camera.size


async def test_a_server_that_restarts_is_found_again():
    """While it is away each photo fails with a sentence; afterwards the next one works."""
    with rtsp_camera() as camera:
        port = camera.server_address[1]
        async with open_camera(address(camera)) as opened:
            await opened.capture()
            camera.cut.set()
            camera.shutdown()
            camera.server_close()
            await eventually(opened._thread.ended.done)
            with pytest.raises(CameraError, match="cannot be opened; check address, user and password"):
                await opened.capture()
            with rtsp_camera(port):
                await again(opened)


async def test_a_stream_that_changes_its_size_goes_on():
    """The camera was set to another resolution: photos have the new size, whole."""
    with rtsp_camera() as camera:
        async with open_camera(address(camera)) as opened:
            await opened.capture()
            camera.size = (128, 96)
            ends_s = time.monotonic() + DEADLINE_S
            while time.monotonic() < ends_s:
                with Image.open(io.BytesIO((await again(opened)).image)) as picture:
                    if picture.size == camera.size:
                        picture.load()
                        return
    raise AssertionError("no photo had the new size")


@pytest.mark.parametrize("digest", [False, True], ids=["basic", "digest"])
@pytest.mark.parametrize("password", ["p@ss:w/rd?#", "100% +&=", "pässwörd"])
async def test_a_password_may_have_any_characters(digest, password):
    """As an address has them: encoded in percent; the name of the camera shows none of it."""
    with rtsp_camera(login=("us er", password), digest=digest) as camera:
        login = f"{quote('us er', safe='')}:{quote(password, safe='')}@"
        async with open_camera(address(camera, login)) as opened:
            photo = await opened.capture()
            assert "***" in photo.source
            assert quote(password, safe="") not in photo.source
