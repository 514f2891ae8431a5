"""End a mosquitto whose owner was killed: it would keep the port and the folder occupied."""

import os
import signal
import time
from pathlib import Path

import structlog

from bus.files.atomic_file import write_atomic

log = structlog.get_logger()

_END_S = 30.0  # it saves its sessions and messages
_POLL_S = 0.02
_START_FIELD = 19  # of /proc/PID/stat, counted after the name: the start time


def note(folder: Path, pid: int) -> None:
    """Record which mosquitto runs in a folder, and for which process."""
    owner = os.getpid()
    write_atomic(_file(folder), f"{pid} {_started(pid)} {owner} {_started(owner)}\n".encode())


def forget(folder: Path) -> None:
    """Remove the record of a mosquitto that has ended."""
    _file(folder).unlink(missing_ok=True)


def end_stray(folder: Path) -> bool:
    """End the mosquitto of a folder if it still runs and its owner does not; return whether there was one.

    A process is recognised by its start time too: process ids are used again. Blocks for 30 s at most.
    """
    try:
        fields = _file(folder).read_text(encoding="ascii").split()
        pid, started, owner, owner_started = int(fields[0]), fields[1], int(fields[2]), fields[3]
    except (
        OSError,
        ValueError,
        IndexError,
    ):  # none, or torn by a power loss
        return False
    if _started(pid) != started or _started(owner) == owner_started:
        return False
    log.warning("broker.stray_ended", pid=pid, folder=str(folder))
    _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_S
    while _started(pid) == started:
        if time.monotonic() > deadline:
            _signal(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _started(pid: int) -> str | None:
    """Return the start time of a running process in clock ticks since boot; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may have spaces and brackets
    return None if fields[0] in "ZX" else fields[_START_FIELD]


def _file(folder: Path) -> Path:
    return folder / "mosquitto.pid"
