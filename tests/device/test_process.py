import asyncio
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, eventually, jpeg
from tests.device.cameras.servers import PASSWORD, USER, camera
from tests.device.conftest import process, recorded, result

RESIDENT_BYTES = 50_000_000


def photos(folder: Path, count: int, size: tuple[int, int] = (160, 120)) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg(number, size))
    return folder


async def test_g1_a_killed_agent_loses_no_result(edge, address, tmp_path):
    """After repeated kill -9 each published photo has exactly one recorded result.

    The edge drops about half of the photos and answers some twice, so that each kill finds photos in all
    states. The last run takes no photos.
    """
    camera = f"folder:{photos(tmp_path / 'photos', 20)}?loop=1"
    chance = random.Random(1)
    edge.reply = lambda photo: [result(photo)] * chance.choice((0, 0, 1, 2))
    for _ in range(3):
        enough = len(edge.photos) + chance.randrange(20, 40)
        with process(address, tmp_path, "--camera", camera, "--interval", "0.005"):
            await eventually(lambda enough=enough: len(edge.photos) >= enough)
    edge.reply = lambda photo: [result(photo)]
    no_photos = camera.replace("loop=1", "part=20/21")
    with process(address, tmp_path, "--camera", no_photos) as last:
        assert await asyncio.to_thread(last.wait, 60) == 0
    ids = [answer.photo_id for answer in recorded(tmp_path / "state")]
    assert len(ids) == len(set(ids)) >= 20  # of 20 files, replayed in a loop
    assert set(ids) == {photo.photo_id for photo in edge.photos}
    with sqlite3.connect(tmp_path / "state" / "pi-1.db") as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    connection.close()


async def test_g3_a_device_stays_small(edge, address, tmp_path):
    """After 200 photos of a megapixel with motion detection, the process has less than 50 MB resident."""
    camera = f"folder:{photos(tmp_path / 'photos', 10, (1280, 960))}?loop=1"
    words = ("--camera", camera, "--motion", "0.001", "--config", str(tmp_path / "device.toml"))
    (tmp_path / "device.toml").write_text("motion_every_s = 0.001\n")
    with process(address, tmp_path, *words) as running:
        await eventually(lambda: len(edge.photos) >= 200)
        assert resident_bytes(running.pid) < RESIDENT_BYTES


PICAMERA2 = """
import pathlib, threading
from PIL import Image

class Picamera2:
    def __init__(self): self.options = {}
    def create_still_configuration(self): pass
    def configure(self, what): self.taken = 0
    def start(self): pass
    def close(self): pass
    def capture_file(self, out, format):
        if self.taken:
            pathlib.Path(FOLDER, "hanging").touch()
            threading.Event().wait()
        self.taken += 1
        Image.new("RGB", (64, 48)).save(out, format)
"""


async def test_a_driver_that_hangs_does_not_delay_sigterm(edge, address, tmp_path, monkeypatch):
    """The process ends with code 0, and not by the deadline of its clean-up."""
    (tmp_path / "picamera2.py").write_text(PICAMERA2.replace("FOLDER", repr(str(tmp_path))))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with process(address, tmp_path, "--camera", "picamera", "--interval", "0.01") as running:
        await edge.photo(1)
        await eventually((tmp_path / "hanging").exists)
        running.terminate()
        assert await asyncio.to_thread(running.wait, 60) == 0


async def test_the_password_of_a_camera_is_not_logged(edge, address, tmp_path):
    """A network camera works by its URL alone; no output of the device has its password or its user."""
    with camera(lambda request: request.respond(jpeg(1)), "digest") as server:
        url = server.url("/video?channel=1&subtype=0", f"{USER}:{PASSWORD}@")
        with process(address, tmp_path, "--camera", f"usb:{url}", "--count", "1") as running:
            assert await asyncio.to_thread(running.wait, 60) == 0
    assert edge.taken()[0].image == jpeg(1)
    output = (tmp_path / "device.log").read_text()
    assert f'"http://***@127.0.0.1:{server.server_port}/video?channel=1&subtype=0"' in output
    assert '"event": "device.started"' in output
    assert '"event": "device.stopped"' in output
    assert PASSWORD not in output
    assert USER not in output


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_a_device_loads_no_model_library():
    """Importing the device side loads neither gRPC nor TensorFlow, numpy, OpenCV or the demonstration."""
    code = (
        "import sys, cli.main, cli.device, device.service, device.cameras.factory\n"
        "heavy = {'grpc', 'tensorflow', 'numpy', 'cv2', 'aiohttp', 'google.protobuf', 'lance', 'demo'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
