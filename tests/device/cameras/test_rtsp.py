"""RTSP cameras, with a real server: GStreamer's."""

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bus.mqtt.presence import now_ms
from device.cameras import hardware
from device.cameras.base import CameraError
from device.cameras.factory import open_camera
from tests.conftest import DEADLINE_S, eventually

PYTHON = Path("/usr/bin/python3")
PROGRAM = Path(__file__).with_name("rtsp_server.py")
USER, PASSWORD = "viewer", "s3cret-w0rd"


@contextlib.contextmanager
def rtsp_server(*login: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run an RTSP server for the duration of a block, and return its port and its process."""
    if not PYTHON.exists():
        pytest.skip("needs the system's Python")
    command = [str(PYTHON), "-I", str(PROGRAM), *login]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if not (line := process.stdout.readline()):
                pytest.skip(
                    f"needs GStreamer's RTSP server, see {PROGRAM.name}: {process.stderr.read()[-200:]}"
                )
            yield int(line), process
        finally:
            process.kill()


async def test_a_photo_of_an_rtsp_stream_is_a_new_frame_with_its_time():
    """Each photo is another frame, taken after it was asked for."""
    with rtsp_server() as (port, _):
        async with open_camera(f"rtsp://127.0.0.1:{port}/live?channel=1&subtype=0") as camera:
            asked_ms = [now_ms()]
            frames = []
            for _ in range(3):
                frames.append(await camera.capture())
                asked_ms.append(now_ms())
    assert len({frame.image for frame in frames}) == 3
    for frame, earliest, latest in zip(frames, asked_ms, asked_ms[1:], strict=False):
        assert earliest - 1 <= frame.taken_at_ms <= latest
    with Image.open(io.BytesIO(frames[0].image)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 240))


def test_a_stream_that_falls_behind_is_opened_again(monkeypatch):
    """A machine that is too slow for a stream gets new frames anyway, and not older and older ones."""
    monkeypatch.setattr(hardware, "MAX_LAG_S", 0.5)
    with rtsp_server() as (port, _):
        driver = hardware._OpenCv(f"rtsp://127.0.0.1:{port}/live", hardware.Shot(), "camera x")
        driver.open()
        try:
            for _ in range(10):
                assert driver.grab() <= 0.5
            first = driver._opened
            time.sleep(1.0)  # not a wait: this is the slow machine
            assert driver.grab() <= 0.5
            assert driver._opened is not first
        finally:
            driver.close()


async def test_an_rtsp_server_that_restarts_is_opened_again():
    """A stream that broke is opened again as soon as the server answers."""
    with rtsp_server() as (port, process):
        async with open_camera(f"rtsp://127.0.0.1:{port}/live") as camera:
            await camera.capture()
            process.kill()
            await eventually(camera._thread.ended.done)
            with pytest.raises(CameraError, match="cannot be opened; check address, user and password"):
                await camera.capture()


def test_the_password_of_an_rtsp_camera_is_sent_and_never_shown():
    """The password is sent; the error for a wrong one does not contain it, and FFmpeg prints nothing."""
    code = (
        "import asyncio, sys\n"
        "from device.cameras.factory import open_camera\n"
        "async def main():\n"
        "    async with open_camera(sys.argv[1]) as camera:\n"
        "        print((await camera.capture()).source)\n"
        "asyncio.run(main())\n"
    )
    with rtsp_server(USER, PASSWORD) as (port, _):
        for word in (PASSWORD, "wr0ng-word"):
            url = f"rtsp://{USER}:{word}@127.0.0.1:{port}/live"
            done = subprocess.run(
                [sys.executable, "-c", code, url],
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE_S,
            )
            output = done.stdout + done.stderr
            assert f"rtsp://***@127.0.0.1:{port}/live" in output
            assert ("cannot be opened" in output) == (word != PASSWORD)
            assert word not in output
            assert "[rtsp @" not in output  # FFmpeg's own lines
