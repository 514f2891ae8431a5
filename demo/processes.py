"""The processes of a run: each in its own session, monitored, and terminated in order."""

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
_LOG_LINES = 6
_LINE_BYTES = 1 << 20
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


class Processes:
    """Start commands of this project; leaving the block terminates all of them.

    Args:
        logs: Folder for the log of each.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._services: dict[str, asyncio.subprocess.Process] = {}
        # The kernel terminates them if this process is killed; without setpriv (util-linux) they would
        # survive.
        self._wrapper = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Terminate all; the first service, the broker, last, so that the others can publish their status."""
        broker = next(iter(self._services), None)
        await asyncio.gather(*(_stop(running) for name, running in self._running.items() if name != broker))
        if broker is not None:
            await _stop(self._services[broker])

    async def start(self, name: str, *words: str) -> None:
        """Start `gleaner WORDS` as a service, which must not exit before the block ends."""
        self._services[name] = await self._start(name, words)

    def pid(self, name: str) -> int:
        """Return the process id of a service."""
        return self._services[name].pid

    async def _start(
        self, name: str, words: Sequence[str], module: str = "cli.main"
    ) -> asyncio.subprocess.Process:
        """Start a command with its standard error in a log."""
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._wrapper, sys.executable, "-P", "-m", "gleaner.module", module, *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C reaches only this process, which terminates them in order
            )  # fmt: skip
        self._running[name] = process
        return process

    async def run(self, name: str, *words: str, module: str = "cli.main") -> str:
        """Run a command until it exits, and return its standard output.

        Raises:
            PermanentError: It failed; has the end of its log.
        """
        process = await self._start(name, words, module)
        out, _ = await process.communicate()
        self._check_exit(name, process)
        return out.decode()

    async def lines(self, name: str, *words: str) -> AsyncIterator[bytes]:
        """Run a command until it exits, and yield the lines of its standard output.

        Raises:
            PermanentError: It failed.
        """
        process = await self._start(name, words)
        assert process.stdout is not None
        async for line in process.stdout:
            yield line
        await process.wait()
        self._check_exit(name, process)

    def check(self) -> None:
        """Check that no service has exited.

        Raises:
            PermanentError: One has; the error has its name and the end of its log.
        """
        for name, process in self._services.items():
            if process.returncode is not None:
                raise self._failure(name, process.returncode)

    def last_log_line(self, name: str) -> str:
        """Return the last line that a command of this project has logged."""
        # Libraries such as TensorFlow log to the same stream; their lines start with a capital letter.
        return next((line for line in reversed(self._last_lines(name)) if line[:1].islower()), "")

    def _check_exit(self, name: str, process: asyncio.subprocess.Process) -> None:
        del self._running[name]
        if process.returncode:
            raise self._failure(name, process.returncode)

    def _failure(self, name: str, code: int) -> PermanentError:
        lines = self._last_lines(name)
        if lines and lines[-1].startswith("gleaner "):  # the error sentence of a command
            return PermanentError(f"{name} failed: {lines[-1]}")
        return PermanentError(f"{name} failed with exit code {code}: " + " | ".join(lines))

    def _last_lines(self, name: str) -> list[str]:
        log = self._log(name)
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-_LOG_LINES:]

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Terminate a process; kill its whole session if it does not exit in time."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.communicate()  # not wait(): it would block on a full pipe of standard output
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
