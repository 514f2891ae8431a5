import asyncio
import json
import signal
import sys

import pytest

from bus.config import Broker
from cli.run_service import changed
from cloud.retraining.config import TrainerConfig
from cloud.rollout.options import RolloutOptions
from device.config import DeviceConfig
from edge.mirror.mirror_server import MirrorConfig
from tests.cli.conftest import start
from tests.conftest import DEADLINE_S, ROOT, eventually


def test_a_start_line_has_what_differs_from_the_defaults():
    """Only settings that were made are logged; a user in a URL is hidden."""
    made = TrainerConfig(
        broker=Broker(port=1884), release=RolloutOptions(url="https://me:secret@models.example/{version}.tar")
    )
    fields = changed(made)
    assert fields["broker"] == {"port": 1884}
    assert fields["release"]["url"] == "https://***@models.example/{version}.tar"
    assert changed(DeviceConfig()) == {}
    mirror = MirrorConfig(
        listen="127.0.0.1:1", origins=("https://me:secret@models.example/",), state_dir=".", max_bytes=1
    )
    assert changed(mirror)["origins"] == ["https://***@models.example/"]


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_service_says_when_it_starts_and_stops(at, edge, tmp_path, number, code):
    """Both lines have the service; the first has the version and settings, the last one the signal."""
    process = await start("device", *at, "--interval", "0", "--state-dir", tmp_path)
    await edge.status("online")
    process.send_signal(number)
    found, err = await ended(process)
    assert found == code
    lines = [json.loads(line) for line in err.splitlines()]
    first, last = lines[0], lines[-1]
    assert (first["event"], first["service"], first["version"]) == ("service.started", "device", "0.1.0")
    assert first["configuration"]["interval_s"] == 0
    assert (last["event"], last["reason"]) == ("service.stopped", number.name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_command_that_is_interrupted_is_130(edge, at, number):
    """It has not done its work, whichever signal ended it."""
    edge.reply = lambda photo: []
    process = await start("send", *at, "README.md")
    await eventually(lambda: edge.photos)  # it has connected and waits for the result
    process.send_signal(number)
    assert (await ended(process))[0] == 130


_DEAF = """
import asyncio
from bus import log
from bus.config import ClientConfig
from cli import run_service

async def deaf():
    print("running", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

log.configure("info")
run_service.STOP_S = 0.1
run_service.serve("deaf", ClientConfig(), deaf())
"""


async def test_a_service_that_does_not_stop_says_so():
    """The last line has the reason, and no line is lost when the process ends."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DEAF, stdout=pipe, stderr=pipe, cwd=ROOT
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"running\n"
    process.send_signal(signal.SIGTERM)
    code, err = await ended(process)
    last = json.loads(err.splitlines()[-1])
    assert (code, last["event"], last["level"], last["waited_s"]) == (1, "service.gave_up", "error", 0.1)


_STOPPED_AT_ONCE = """
import asyncio, os, signal
from bus.config import ClientConfig
from cli import run_service

class Log:
    def info(self, event, **fields):
        print(event, fields.get("reason"), flush=True)
        if event == "service.started":
            os.kill(os.getpid(), signal.SIGTERM)

run_service.log = Log()
run_service.serve("short", ClientConfig(), asyncio.sleep(600))
"""


async def test_a_service_that_is_stopped_at_its_first_line_stops_in_order():
    """Who reads that it has started may end it: the signal does not kill it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _STOPPED_AT_ONCE, stdout=pipe, stderr=pipe, cwd=ROOT
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    lines = [b"service.started None", b"service.stopped SIGTERM"]
    assert (process.returncode, out.splitlines()) == (0, lines), err
