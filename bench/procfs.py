"""Processor time and memory of a process, read from /proc."""

import os
import time
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PARENT = 1  # position after the name, from 0
_PROCESS_CLOCK = 2


def cpu_s(pid: int) -> float:
    """Return the processor seconds of a process and its descendants so far."""
    return sum(_cpu_s(one) for one in _tree(pid))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants."""
    return sum(_resident_bytes(one) for one in _tree(pid))


def _cpu_s(pid: int) -> float:
    # Linux's clock of another process, in nanoseconds: the ticks of /proc are 10 ms, as much as ten photos.
    try:
        return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)
    except OSError:  # it has exited
        return 0.0


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _tree(pid: int) -> list[int]:
    parents = {
        int(path.name): _fields(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()
    }
    found = [pid]
    for one in found:
        found += [child for child, fields in parents.items() if fields and int(fields[_PARENT]) == one]
    return found


def _fields(pid: int) -> list[str]:
    """Return the fields after the name in `stat` of a process; empty if it has exited."""
    try:
        # Split at the last parenthesis: the name may contain spaces and parentheses.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []
