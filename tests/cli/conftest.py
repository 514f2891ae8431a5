"""Run commands as processes, or as calls where no process is needed."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from bus import log
from cli.main import main
from tests.conftest import DEADLINE_S, ROOT
from tests.device.conftest import Edge


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Standard error, which must be one line and no traceback, besides the log of a service in JSON."""
        lines = [line for line in self.err.splitlines() if not line.startswith("{")]
        assert len(lines) == 1, self.err
        return lines[0]


async def start(*words: object) -> asyncio.subprocess.Process:
    """Start `gleaner WORDS` as a process."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli.main",
        *map(str, words),
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def gleaner(*words: object) -> Done:
    """Run `gleaner WORDS` as a process until it ends."""
    process = await start(*words)
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
def called(capsys, monkeypatch) -> Callable[..., Done]:
    """Return a function that runs `gleaner WORDS` in this process, without configuring the logs."""
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)

    def call(*words: object) -> Done:
        try:
            code = main(list(map(str, words)))
        except SystemExit as ended:
            code = ended.code
        output = capsys.readouterr()
        return Done(code, output.out, output.err)

    return call


@pytest.fixture
async def edge(address):
    """An edge on the test's broker that classifies every photo."""
    async with Edge(address).running() as edge:
        yield edge


@pytest.fixture
def at(address) -> tuple[str, str]:
    """Options with the address of the test's broker."""
    return "--broker", f"127.0.0.1:{address.port}"


@pytest.fixture
def nowhere() -> tuple[str, str]:
    """Options with an address where no broker listens."""
    return "--broker", "127.0.0.1:1"
