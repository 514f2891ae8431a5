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
from tests.demo.conftest import Leftovers

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
    """Start a broker, which has a child process, and wait until it listens."""
    port = free_port()
    await processes.start("broker", "broker", "--port", str(port), "--dir", str(folder))
    await eventually(lambda: is_listening(port))


@pytest.mark.parametrize("ending", [None, PermanentError("it fails"), asyncio.CancelledError()])
async def test_leaving_the_block_terminates_everything(
    ending, leftovers: Leftovers, tmp_path: Path, mosquitto
):
    """After success, an error or cancellation no process is left, also no child process."""
    with contextlib.suppress(PermanentError, asyncio.CancelledError):
        async with Processes(tmp_path / "logs") as processes:
            await broker(processes, tmp_path / "broker")
            assert len(leftovers.processes()) == 2
            if ending is not None:
                raise ending
    assert leftovers.processes() == []


async def test_a_process_that_ignores_sigterm_is_killed(
    leftovers: Leftovers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is killed with its whole session after the deadline."""
    monkeypatch.setattr("demo.processes._STOP_S", 0.5)
    (tmp_path / "stubborn.py").write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "print('stubborn', flush=True)\n"
        "time.sleep(3600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with Processes(tmp_path / "logs") as processes, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(processes.run("stubborn", module="stubborn"))
        # Registered too: on a busy machine its child may run before asyncio has returned the process.
        await eventually(lambda: "stubborn" in processes._running and len(leftovers.processes()) == 2)
        running.cancel()
    # The system ends a killed process a moment after the signal.
    await eventually(lambda: leftovers.processes() == [])


async def test_killing_the_run_terminates_its_processes(leftovers: Leftovers, tmp_path: Path, mosquitto):
    """After kill -9 of the parent the kernel sends them SIGTERM."""
    port = free_port()
    words = (sys.executable, "-c", START, str(tmp_path), str(port))
    run = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    try:
        await eventually(lambda: is_listening(port))
    finally:
        run.kill()
        await run.wait()
    await eventually(lambda: leftovers.processes() == [])


async def test_a_failure_has_the_error_of_the_command(tmp_path: Path):
    """The error of a failed command has the sentence that it printed."""
    async with Processes(tmp_path / "logs") as processes:
        with pytest.raises(PermanentError) as failed:
            await processes.run(
                "import", "cloud", "import", str(tmp_path / "none"), "--dataset", str(tmp_path / "d")
            )
    assert str(failed.value).startswith("import failed: gleaner cloud import: ")
    assert "\n" not in str(failed.value)


async def test_a_service_that_exits_is_detected(tmp_path: Path):
    """The next check fails with its name and the end of its log."""
    async with Processes(tmp_path / "logs") as processes:
        # Not a broker, which would leave its mosquitto running when it is killed.
        await processes.start(
            "edge", "edge", "--broker", "127.0.0.1:1", "--state-dir", str(tmp_path / "edge")
        )
        processes.check()
        os.kill(processes._services["edge"].pid, signal.SIGKILL)
        await processes._services["edge"].wait()
        with pytest.raises(PermanentError, match="edge failed with exit code -9"):
            processes.check()


async def test_a_command_that_exits_is_not_a_failure(tmp_path: Path):
    """Commands are not monitored like services, and their output is returned."""
    async with Processes(tmp_path / "logs") as processes:
        assert "gleaner COMMAND" in await processes.run("help", "--help")
        lines = [line async for line in processes.lines("again", "--help")]
        assert lines[0].startswith(b"usage: ")
        processes.check()


async def test_progress_is_the_last_line_of_the_command(tmp_path: Path):
    """Log lines of libraries below it are skipped."""
    processes = Processes(tmp_path)
    assert processes.last_log_line("train-1") == ""
    (tmp_path / "train-1.log").write_text(
        "embed photos: 32 of 210\nI0000 cudart_stub.cc\nCould not find cuda\n"
    )
    assert processes.last_log_line("train-1") == "embed photos: 32 of 210"
