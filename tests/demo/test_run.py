"""What interrupts the demonstration; tests/console/test_stay_demo.py runs the whole of it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

import pytest

from demo.synthetic import LOOKS, draw_collection
from tests.conftest import ROOT
from tests.demo.conftest import Leftovers

pytestmark = pytest.mark.slow
COUNTS = {"train": 10, "gold": 10, "stream": 20}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection of synthetic photos."""
    folder = tmp_path_factory.mktemp("photos")
    for _ in draw_collection(folder, counts=COUNTS, looks=list(LOOKS.values()), seed=1):
        pass
    return folder


async def start(words: Sequence[str], out: Path) -> Process:
    """Start the command in a new session, as a terminal does."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "demo", "--out", str(out), *words,
        cwd=ROOT, stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip


async def wait_for_output(run: Process, text: str) -> None:
    """Read standard error until a line with that text."""
    assert run.stderr is not None
    output = b""
    while line := await run.stderr.readline():
        output += line
        if text.encode() in line:
            return
    pytest.fail(f"no {text!r} in the output: {output.decode()}")


@pytest.mark.parametrize(
    ("step", "whole_group", "times"),
    [
        ("1/8", False, 1),  # while photos are drawn
        ("3/8", True, 3),  # while all services run and a training starts
    ],
)
async def test_ctrl_c_leaves_nothing(
    step: str, *, whole_group: bool, times: int, photos: Path, leftovers: Leftovers, tmp_path: Path
):
    """A signal to the process or its group, also a repeated one, leaves no process and no folder."""
    run = await start([] if step == "1/8" else ["--photos", str(photos)], tmp_path / "out")
    await wait_for_output(run, step)
    assert leftovers.folders() != []
    for number in range(times):
        with contextlib.suppress(ProcessLookupError):  # it may have exited after the first
            os.killpg(run.pid, signal.SIGINT) if whole_group else run.send_signal(signal.SIGINT)
        if number == 0:
            await wait_for_output(run, "stopping all processes")
    await run.communicate()
    assert run.returncode == 130
    assert leftovers.processes() == []
    assert leftovers.folders() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--photos", "/nowhere"], "gleaner demo: there is no folder /nowhere"),
        (["--backbone", "resnet"], "gleaner demo: backbone: expected one of xception, xception-small, com"),
    ],
)
async def test_wrong_options_are_one_sentence(
    words: list[str], message: str, photos: Path, leftovers: Leftovers, tmp_path: Path
):
    """A wrong folder or backbone is an error with code 1, before any service starts."""
    run = await start(["--photos", str(photos), *words], tmp_path / "out")
    out, err = await run.communicate()
    last = err.decode().splitlines()[-1]
    assert run.returncode == 1
    assert out == b""
    assert last.startswith(message)
    assert "2/8" not in err.decode()
    assert leftovers.processes() == []
    assert leftovers.folders() == []
