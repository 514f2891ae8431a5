import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from bus.broker.process import free_port, is_listening
from demo.processes import Processes
from schemas.errors import PermanentError
from tests.conftest import ROOT, eventually
from tests.demo.conftest import Leavings

START = """
import asyncio, sys
from pathlib import Path
from demo.processes import Processes

async def main():
    async with Processes(Path(sys.argv[1])) as processes:
        await processes.start("broker", "broker", "--port", sys.argv[2], "--dir", sys.argv[1])
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def broker(processes: Processes, folder: Path) -> None:
    """Start a broker, which has a process of its own below it, and wait until it listens."""
    port = free_port()
    await processes.start("broker", "broker", "--port", str(port), "--dir", str(folder))
    await eventually(lambda: is_listening(port), within_s=60)


@pytest.mark.parametrize(
    "ending", [None, PermanentError("a", expected="b", got="c"), asyncio.CancelledError()]
)
async def test_leaving_the_block_ends_everything(ending, leavings: Leavings, tmp_path: Path, mosquitto):
    """However a run ends, its processes and those that they started are gone afterwards."""
    with contextlib.suppress(PermanentError, asyncio.CancelledError):
        async with Processes(tmp_path / "logs") as processes:
            await broker(processes, tmp_path / "broker")
            assert len(leavings.processes()) == 2
            if ending is not None:
                raise ending
    assert leavings.processes() == []


async def test_a_process_that_does_not_end_is_killed(
    leavings: Leavings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One that ignores the signal is killed with all of its session, after a deadline."""
    monkeypatch.setattr("demo.processes._STOP_S", 0.5)
    (tmp_path / "deaf.py").write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "print('deaf', flush=True)\n"
        "time.sleep(3600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with Processes(tmp_path / "logs") as processes, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(processes.run("deaf", module="deaf"))
        await eventually(lambda: len(leavings.processes()) == 2, within_s=60)
        running.cancel()
    assert leavings.processes() == []


async def test_a_killed_run_takes_its_processes_along(leavings: Leavings, tmp_path: Path, mosquitto):
    """After kill -9 of the run itself the kernel tells them to end, and they do so in order."""
    port = free_port()
    words = (sys.executable, "-c", START, str(tmp_path), str(port))
    run = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    try:
        await eventually(lambda: is_listening(port), within_s=60)
    finally:
        run.kill()
        await run.wait()
    await eventually(lambda: leavings.processes() == [], within_s=30)


async def test_a_failure_quotes_the_last_word_of_the_log(tmp_path: Path):
    """A command that fails is an error with the sentence that it printed."""
    async with Processes(tmp_path / "logs") as processes:
        with pytest.raises(PermanentError) as failed:
            await processes.run(
                "import", "cloud", "import", str(tmp_path / "none"), "--dataset", str(tmp_path / "d")
            )
    assert str(failed.value).startswith("import: expected to run, got gleaner cloud import: folder ")
    assert "\n" not in str(failed.value)


async def test_a_service_that_ends_is_noticed(tmp_path: Path):
    """A service that has ended fails the next check, with its name and the end of its log."""
    async with Processes(tmp_path / "logs") as processes:
        # Not a broker: killed, it would leave its mosquitto behind.
        await processes.start(
            "edge", "edge", "--broker", "127.0.0.1:1", "--state-dir", str(tmp_path / "edge")
        )
        processes.check()
        os.kill(processes._services["edge"].pid, signal.SIGKILL)
        await processes._services["edge"].wait()
        with pytest.raises(PermanentError, match="edge: expected to run, got exit code -9"):
            processes.check()


async def test_a_command_that_has_ended_is_no_failure(tmp_path: Path):
    """What runs to its end is not among the services that are watched, and its output is returned."""
    async with Processes(tmp_path / "logs") as processes:
        assert "gleaner COMMAND" in await processes.run("help", "--help")
        lines = [line async for line in processes.lines("again", "--help")]
        assert lines[0].startswith(b"usage: ")
        processes.check()


async def test_progress_is_the_last_line_of_ours(tmp_path: Path):
    """What a command says of its progress is seen below the libraries' own messages."""
    processes = Processes(tmp_path)
    assert processes.said("train-1") == ""
    (tmp_path / "train-1.log").write_text(
        "embed photos: 32 of 210\nI0000 cudart_stub.cc\nCould not find cuda\n"
    )
    assert processes.said("train-1") == "embed photos: 32 of 210"
