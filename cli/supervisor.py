"""Run several commands as child processes, and end all of them when one ends, or this process."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bus.parent_death import ending_with_parent
from schemas.errors import PermanentError

_STOP_S = 15.0
"""Seconds between SIGTERM and SIGKILL."""
_TAIL_BYTES = 4096
_MOST_LOG_BYTES = 20_000_000
_LOG_CHECK_S = 60.0


class Supervisor:
    """Child processes with a log each. Leaving the block terminates them, the last ones after all others.

    A log above 20 MB becomes that with `.1` behind its name, which it replaces; checked once a minute.

    On Linux they are also terminated if this process ends without leaving the block, as by a second Ctrl-C.

    Args:
        logs: Folder for their standard output and error.
        command: Words before those of each process.
    """

    def __init__(self, logs: Path, command: Sequence[str]) -> None:
        self._logs = logs
        self._command = tuple(command)
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._last: set[str] = set()
        self._started = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Create the folder."""
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Terminate all."""
        for is_last in (False, True):
            ending = (process for name, process in self._running.items() if (name in self._last) == is_last)
            await asyncio.gather(*map(_end, ending))

    async def start(self, name: str, words: Sequence[str], *, last: bool = False) -> None:
        """Start a process that must not end before the block does.

        Args:
            name: For its log.
            words: Its command.
            last: Whether it ends after the others, as a broker, so that they can publish `offline`.
        """
        if last:
            self._last.add(name)
        with self._path(name).open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *self._command,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C reaches only this process, which terminates them in order
                preexec_fn=ending_with_parent(),
            )
        self._started.set()

    async def wait_for_end(self) -> None:
        """Wait until a process ends, also one that is started later, and raise. Safe to cancel.

        Raises:
            PermanentError: With the process, its exit code and the last line of its log.
        """
        while True:
            self._started.clear()
            waits = {asyncio.create_task(one.wait()): name for name, one in self._running.items()}
            another = asyncio.create_task(self._started.wait())
            try:
                done, _ = await asyncio.wait(
                    (*waits, another), timeout=_LOG_CHECK_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for task in (*waits, another):
                    task.cancel()
            if ended := [waits[task] for task in done if task in waits]:
                raise self._failure(ended[0])
            for name in list(self._running):  # another may be started meanwhile
                await asyncio.to_thread(_shorten, self._path(name))

    def _failure(self, name: str) -> PermanentError:
        lines = self._path(name).read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        code = self._running[name].returncode
        return PermanentError(f"{name} ended with exit code {code}: {last}", hint=f"see {self._path(name)}")

    def _path(self, name: str) -> Path:
        return self._logs / f"{name}.log"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process; also while the caller is being cancelled."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _shorten(log: Path) -> None:
    """Keep a copy of a log that is too long, and empty it. Its process only appends, so it is unaffected."""
    copy = log.with_name(f"{log.name}.1")
    with suppress(OSError):
        if log.stat().st_size <= _MOST_LOG_BYTES:
            return
        try:
            shutil.copyfile(log, copy)
        except OSError:  # a full disk needs the room more than the lines
            copy.unlink(missing_ok=True)
        os.truncate(log, 0)
