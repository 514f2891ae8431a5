"""The processes of a run: started in sessions of their own, watched, and ended in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import PermanentError

_STOP_S = 12.0
_TAIL_LINES = 6
_LINE_BYTES = 1 << 20


class Processes:
    """Starts `gleaner` commands; whatever happens, leaving the block ends all of them.

    Args:
        logs: Folder for what they log.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them, the last one started first."""
        for name in reversed(list(self._running)):
            await asyncio.shield(self.stop(name))

    async def start(self, name: str, *words: str) -> asyncio.subprocess.Process:
        """Start `gleaner WORDS` with its standard error in a log; its output can be read."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cli.main",
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            )
        self._running[name] = process
        return process

    async def run(self, name: str, *words: str) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            PermanentError: It failed; the message quotes its log.
        """
        process = await self.start(name, *words)
        out, _ = await process.communicate()
        del self._running[name]
        if process.returncode:
            raise self._failure(name, process.returncode)
        return out.decode()

    async def lines(self, name: str, *words: str) -> AsyncIterator[bytes]:
        """Run a command to its end and yield what it prints, line by line.

        Raises:
            PermanentError: It failed.
        """
        process = await self.start(name, *words)
        assert process.stdout is not None
        async for line in process.stdout:
            yield line
        code = await process.wait()
        del self._running[name]
        if code:
            raise self._failure(name, code)

    def check(self) -> None:
        """Raise if a process that should be running has ended.

        Raises:
            PermanentError: It says which one, and quotes its log.
        """
        for name, process in self._running.items():
            if process.returncode is not None:
                raise self._failure(name, process.returncode)

    async def stop(self, name: str) -> None:
        """Ask a process to end, and end it if it does not."""
        process = self._running.pop(name)
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _failure(self, name: str, code: int) -> PermanentError:
        tail = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        return PermanentError(
            f"process {name}", expected="to run", got=f"exit code {code}: " + " | ".join(tail)
        )
