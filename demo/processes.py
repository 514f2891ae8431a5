"""The processes of a run: started in sessions of their own, watched, and ended in order."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import PermanentError

_STOP_S = 4.0
_TAIL_LINES = 6
_LINE_BYTES = 1 << 20
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


class Processes:
    """Starts commands of this project; whatever happens, leaving the block ends all of them.

    Were this process killed, the kernel would tell them to end (where there is util-linux's `setpriv`).

    Args:
        logs: Folder for what they log.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._services: dict[str, asyncio.subprocess.Process] = {}
        self._tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them: the first service, through which they speak, after all others."""
        broker = next(iter(self._services), None)
        await asyncio.gather(*(_stop(running) for name, running in self._running.items() if name != broker))
        if broker is not None:
            await _stop(self._services[broker])

    async def start(self, name: str, *words: str) -> None:
        """Start `gleaner WORDS` as a service, which is not expected to end before the block does."""
        self._services[name] = await self._start(name, words)

    def pid(self, name: str) -> int:
        """Return the process id of a service."""
        return self._services[name].pid

    async def _start(
        self, name: str, words: Sequence[str], module: str = "cli.main"
    ) -> asyncio.subprocess.Process:
        """Start a command with its standard error in a log. Safe to cancel: it is killed then."""
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._tied, sys.executable, "-m", module, *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                env=os.environ | _QUIET,
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            )  # fmt: skip
        self._running[name] = process
        return process

    async def run(self, name: str, *words: str, module: str = "cli.main") -> str:
        """Run a command to its end and return what it printed.

        Raises:
            PermanentError: It failed; the message quotes its log.
        """
        process = await self._start(name, words, module)
        out, _ = await process.communicate()
        self._ended(name, process)
        return out.decode()

    async def lines(self, name: str, *words: str) -> AsyncIterator[bytes]:
        """Run a command to its end and yield what it prints, line by line.

        Raises:
            PermanentError: It failed.
        """
        process = await self._start(name, words)
        assert process.stdout is not None
        async for line in process.stdout:
            yield line
        await process.wait()
        self._ended(name, process)

    def check(self) -> None:
        """Raise if a service has ended.

        Raises:
            PermanentError: It says which one, and quotes its log.
        """
        for name, process in self._services.items():
            if process.returncode is not None:
                raise self._failure(name, process.returncode)

    def said(self, name: str) -> str:
        """Return the last line of a process's log that is our own; TensorFlow's begin with a capital."""
        return next((line for line in reversed(self._tail(name)) if line[:1].islower()), "")

    def _ended(self, name: str, process: asyncio.subprocess.Process) -> None:
        del self._running[name]
        if process.returncode:
            raise self._failure(name, process.returncode)

    def _failure(self, name: str, code: int) -> PermanentError:
        tail = self._tail(name)
        if tail and tail[-1].startswith("gleaner "):  # a command's last word is a sentence
            return PermanentError(name, expected="to run", got=tail[-1])
        return PermanentError(name, expected="to run", got=f"exit code {code}: " + " | ".join(tail))

    def _tail(self, name: str) -> list[str]:
        log = self._log(name)
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-_TAIL_LINES:]

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and end its session if it does not."""
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
