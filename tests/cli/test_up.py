import asyncio
import os
import re
import shlex
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bus.broker.process import free_port
from cli.supervisor import Supervisor
from cli.up import _code
from schemas.errors import PermanentError
from tests.cli.conftest import gleaner, start
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.nodes import photo


async def line_with(process: asyncio.subprocess.Process, word: str) -> str:
    """Return the next line of standard output that has a word."""
    assert process.stdout is not None
    async with asyncio.timeout(240):
        while line := (await process.stdout.readline()).decode():
            if word in line:
                return line.strip()
    raise AssertionError((await process.stderr.read()).decode())


def alive(folder: Path) -> list[str]:
    """Return the command lines of the processes that use a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in words and str(os.getpid()) != path.parent.name:
            found.append(words.replace("\0", " "))
    return found


@pytest.mark.slow
async def test_a_whole_system_runs_from_one_command(tmp_path):
    """A device with the printed command connects with its own certificate; Ctrl-C ends every process."""
    site, photos = tmp_path / "site", tmp_path / "photos/cat"
    photos.mkdir(parents=True)
    (photos / "1.jpg").write_bytes(photo(1, "blue"))
    words = ("--host", "127.0.0.1", "--port", free_port(count=5), "--devices", "pi-1")
    up = await start("up", site, *words)
    try:
        fetch, change, command = (await line_with(up, "on pi-1: ")).removeprefix("on pi-1: ").split(" && ")
        folder = change.removeprefix("cd ")
        assert fetch.endswith(f"@127.0.0.1:{site}/devices/{folder} .")
        if find_spec("zeroconf") is not None:  # of the extra lan
            command = re.sub(r"--broker \S+", "--discover", command)
        agent = shlex.split(command)[1:-1]
        keys = {"ca.pem", "device.pem", "device.key"}
        placed = [str(site / "devices" / folder / word) if word in keys else word for word in agent]
        more = ("--interval", "0", "--state-dir", tmp_path / "state")
        device = await start(*placed, f"folder:{photos.parent}", *more)
        config = ("--config", site / "operator/edge-1.toml")
        seen = await gleaner("tail", "status/edge-1/pi-1", "--count", "1", *config)
        assert '"state":"online"' in seen.out
        device.terminate()
        await device.wait()
    finally:
        up.send_signal(signal.SIGINT)
    async with asyncio.timeout(DEADLINE_S):
        await up.communicate()
    assert up.returncode == 130
    assert alive(site) == []


def test_a_code_is_drawn_for_the_line():
    """It is read back as the line by OpenCV, which is how a phone sees it."""
    pytest.importorskip("segno", reason="the extra lan is not installed")
    reader = pytest.importorskip("cv2", reason="the extra usb is not installed").QRCodeDetector()
    line = "scp -r ann@192.168.1.20:/home/ann/site/devices/edge-1.pi-1 . && cd edge-1.pi-1 && gleaner device"
    # Two modules per character, one above the other.
    halves = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    rows = [row for row in re.sub(r"\x1b\[[0-9;]*m", "", _code(line)).splitlines() if row]
    modules = np.array([[halves[one] for one in row] for row in rows])
    picture = modules.transpose(0, 2, 1).reshape(-1, modules.shape[1])
    picture = np.kron(picture, np.ones((6, 6))).astype(np.uint8) * 255
    decoded = {
        reader.detectAndDecode(np.pad(one, 24, constant_values=255))[0] for one in (picture, 255 - picture)
    }
    assert line in decoded


async def test_the_end_of_one_process_ends_the_others(tmp_path):
    """The error names the process, its exit code, and the last line of its log."""
    async with Supervisor(tmp_path / "logs", (sys.executable, "-c")) as processes:
        await processes.start("first", [f"import time; time.sleep(600)  # {tmp_path}"])
        watching = asyncio.create_task(processes.wait_for_end())
        await processes.start("second", ["raise SystemExit('it broke')"])
        with pytest.raises(PermanentError) as caught:
            await watching
    assert "second ended with exit code 1: it broke" in str(caught.value)
    assert alive(tmp_path) == []


_SUPERVISED = """
import asyncio, pathlib, sys
from cli.supervisor import Supervisor

async def main(folder):
    async with Supervisor(pathlib.Path(folder), (sys.executable, "-c")) as processes:
        await processes.start("child", [f"import time; time.sleep(600)  # {folder}"])
        print("started", flush=True)
        await processes.wait_for_end()

asyncio.run(main(sys.argv[1]))
"""


async def test_processes_end_with_a_supervisor_that_is_killed(tmp_path):
    """Ended by a second Ctrl-C or by the kernel, it leaves no broker that holds the ports."""
    words = (sys.executable, "-c", _SUPERVISED, tmp_path)
    up = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert up.stdout is not None
    assert await up.stdout.readline() == b"started\n"
    up.kill()
    await up.wait()
    await eventually(lambda: alive(tmp_path) == [])


_ENDING = """
import pathlib, signal, sys, time
own, *awaited = map(pathlib.Path, sys.argv[1:])

def end(*_):
    own.touch()
    while not all(one.exists() for one in awaited):
        time.sleep(0.01)
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


async def test_services_end_at_once_and_brokers_after_them(tmp_path):
    """One after the other they would take longer than the time to stop; none is killed."""
    first, second, broker = (tmp_path / name for name in ("first", "second", "broker"))
    waits = {first: [second], second: [first], broker: [first, second]}
    async with Supervisor(tmp_path / "logs", (sys.executable, "-c", _ENDING)) as processes:
        for one, awaited in waits.items():
            await processes.start(one.name, [str(one), *map(str, awaited)], last=one == broker)
        for one in waits:
            log = tmp_path / "logs" / f"{one.name}.log"
            await eventually(lambda log=log: "ready" in log.read_text())
    assert [process.returncode for process in processes._running.values()] == [0, 0, 0]


async def test_g3_logs_are_bounded(tmp_path, monkeypatch):
    """G3: a service that logs for years takes a stated part of the disk, and loses its oldest lines."""
    monkeypatch.setattr("cli.supervisor._MOST_LOG_BYTES", 10_000)
    monkeypatch.setattr("cli.supervisor._LOG_CHECK_S", 0.01)
    talking = "import itertools, time\nfor number in itertools.count(): print(number); time.sleep(0.0001)"
    async with Supervisor(tmp_path, (sys.executable, "-c")) as processes:
        await processes.start("talking", [talking])
        watching = asyncio.create_task(processes.wait_for_end())
        log, older = tmp_path / "talking.log", tmp_path / "talking.log.1"
        await eventually(older.exists)
        before = older.read_bytes()
        await eventually(lambda: older.read_bytes() != before)
        assert log.stat().st_size < 1_000_000
        assert not watching.done()
        watching.cancel()
    first, last = (int(text.split()[0]) for text in (before, log.read_bytes() or b"1"))
    assert first == 0 < last
