"""Run a step in a child process: hand it over on stdin, append its output to a file, end it in time."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from cloud.retraining.steps import Step
from schemas.errors import PermanentError

_TAIL_BYTES = 4096
_REPORT_EVERY_S = 60.0
"""Seconds between two lines of the log about a step that runs."""
_MAX_LINE_CHARS = 200
_SIGTERM_S = 5.0
"""Time between SIGTERM and SIGKILL, in seconds."""

log = structlog.get_logger()


class _ProgressLine(msgspec.Struct, frozen=True):
    """A line of `LoggedProgress`."""

    step: str
    total: int
    done: int = 0


async def run_in_process(
    worker: Sequence[str], step: Step, *, inherit: int, output: Path, timeout_s: float | None
) -> None:
    """Run a step to its end, and log each minute how far it is. Cancelling ends the process.

    Args:
        worker: Command that decodes the step from its standard input and runs it.
        step: What to run.
        inherit: Descriptor of a lock that the process keeps until it ends.
        output: File to which standard output and standard error are appended.
        timeout_s: Longest duration in seconds; None for no limit.

    Raises:
        PermanentError: The step failed, with the last line of its output, or took too long.
        OSError: The command cannot be started.
    """
    name = str(step.__struct_config__.tag)
    with output.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            # pass_fds: descriptors are closed on exec by default, and the lock would end with this process.
            *worker,
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=file,
            pass_fds=(inherit,),
        )
    try:
        async with asyncio.timeout(timeout_s), _reported(name, output):
            # Waits for the end of the process; ignores a broken pipe if it does not read its input.
            await process.communicate(msgspec.json.encode(step))
    except TimeoutError:
        raise PermanentError(
            f"step {name!r} did not end within {timeout_s:g} s",
            hint="step_timeout_s is the limit",
        ) from None
    finally:
        await _end(process)  # also after a cancellation: no step outlives its round
    if process.returncode != 0:
        raise PermanentError(
            f"step {name!r} failed with exit code {process.returncode}: {_last_line(output)}"
        )


@asynccontextmanager
async def _reported(name: str, output: Path) -> AsyncIterator[None]:
    """Log from time to time for how long a step runs, and the last line of its output."""

    async def report() -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            running_s = round(time.monotonic() - began, 1)
            log.info("round.step_running", step=name, running_s=running_s, at=_position(_last_line(output)))

    task = asyncio.create_task(report(), name="round.report")
    try:
        yield
    finally:
        task.cancel()


def _position(line: str) -> str:
    """Return how far a step is, such as `embed photos: 300 of 1000`; of another line the line itself."""
    try:
        at = msgspec.json.decode(line, type=_ProgressLine)
    except msgspec.DecodeError:
        return line[:_MAX_LINE_CHARS]
    return f"{at.step}: {at.done} of {at.total}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that may still be running; also while the caller is being cancelled."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_SIGTERM_S):
            await process.wait()
    except TimeoutError:  # it does not disconnect, for example because the broker hangs
        process.kill()
        await process.wait()


def _last_line(path: Path) -> str:
    """Return the last line of a file that is not blank."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        # "replace": the tail may begin inside a character.
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
