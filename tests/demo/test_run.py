"""The demonstration itself, with few photos, in processes of its own."""

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
from tests.demo.conftest import Leavings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
COUNTS = {"train": 10, "gold": 60, "stream": 60}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection."""
    folder = tmp_path_factory.mktemp("photos")
    for _ in draw_collection(folder, counts=COUNTS, looks=list(LOOKS.values()), seed=1):
        pass
    return folder


async def start(words: Sequence[str], out: Path) -> Process:
    """Start the command in a session of its own, as a terminal would."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "demo", "--out", str(out), *words,
        cwd=ROOT, stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip


async def said(run: Process, word: str) -> None:
    """Read what the run tells until it says a word."""
    assert run.stderr is not None
    seen = b""
    while line := await run.stderr.readline():
        seen += line
        if word.encode() in line:
            return
    pytest.fail(f"it ended without {word!r}: {seen.decode()}")


async def test_the_whole_loop_with_few_photos(photos: Path, leavings: Leavings, tmp_path: Path):
    """All photos are answered, version 2 is better, the report is there, and nothing else is left."""
    run = await start(["--photos", str(photos)], tmp_path / "out")
    out, told = await run.communicate()
    rows = {line[:28].strip(): line[28:] for line in out.decode().splitlines()}
    assert run.returncode == 0, told.decode()
    assert (rows["photos sent"], rows["photos answered"], rows["photos lost"]) == ("210", "210", "0")
    assert rows["failed during the swap"].startswith("0 of 150 (")
    assert rows["version 1, 10 labels"].split()[1:5] == ["of", "60", "gold", "photos"]
    assert rows["20 labels by a person"].startswith("+")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert leavings.processes() == []
    assert leavings.folders() == []


@pytest.mark.parametrize(
    ("word", "whole_group", "times"),
    [
        ("1/8", False, 1),  # while it draws
        ("3/8", True, 3),  # while all is up and a training starts, by somebody impatient
    ],
)
async def test_ctrl_c_leaves_nothing(
    word: str, *, whole_group: bool, times: int, photos: Path, leavings: Leavings, tmp_path: Path
):
    """A signal to the process or to its group, at any step and repeated, leaves no process and no folder."""
    run = await start([] if word == "1/8" else ["--photos", str(photos)], tmp_path / "out")
    await said(run, word)
    assert leavings.folders() != []
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):  # it may have ended after the first
            os.killpg(run.pid, signal.SIGINT) if whole_group else run.send_signal(signal.SIGINT)
        await asyncio.sleep(0.1)
    await run.communicate()
    assert run.returncode == 130
    assert leavings.processes() == []
    assert leavings.folders() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--photos", "/nowhere"], "gleaner demo: photos /nowhere: expected a folder, got none there"),
        (["--backbone", "resnet"], "gleaner demo: backbone: expected one of xception, xception-small, eff"),
    ],
)
async def test_what_cannot_be_played_is_said_in_a_sentence(
    words: list[str], says: str, leavings: Leavings, tmp_path: Path
):
    """A wrong folder or backbone ends the run before a service starts, with one line and exit code 1."""
    run = await start(words, tmp_path / "out")
    out, told = await run.communicate()
    last = told.decode().splitlines()[-1]
    assert run.returncode == 1
    assert out == b""
    assert last.startswith(says)
    assert "2/8" not in told.decode()
    assert leavings.processes() == []
    assert leavings.folders() == []
