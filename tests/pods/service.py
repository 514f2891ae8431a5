"""A program that runs on a machine until it is stopped, even after the process that started it."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.kubeedge.service import running
from tests.pods.machine import Machine, MachineError

_STOP_S = 15.0
_START_S = 10.0
_LOOK_S = 0.02
_TAIL_LINES = 5


class Service:
    """A program on a machine.

    Args:
        name: Name of its log and pid files.
        machine: Where it runs.
        folder: For its files.
        command: Program and arguments.
    """

    def __init__(self, name: str, machine: Machine, folder: Path, command: list[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._machine = machine
        self._command = command
        self._pid_file = folder / f"{name}.pid"
        self._outer: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 if it does not run."""
        return running(self._pid_file)

    def start(self) -> None:
        """Start it without waiting until it is ready.

        Raises:
            MachineError: The machine is off, or the program ended at once.
        """
        self._outer = outer = self._machine.start(self._command, self.log)
        # nsenter stays as its parent, because a process cannot change its own process namespace.
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        deadline = time.monotonic() + _START_S
        while not (pid := _first(children)):
            if outer.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name} did not start: {self.tail()}")
            time.sleep(_LOOK_S)
        self._pid_file.write_text(f"{pid} {self._command[0]}", encoding="utf-8")

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self._end(signal.SIGKILL)

    def ended(self) -> bool:
        """Return True if it was started here and has ended."""
        return self._outer is not None and self._outer.poll() is not None

    def tail(self) -> str:
        """Return the last lines of its log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:])

    def _end(self, how: signal.Signals) -> None:
        outer, self._outer = self._outer, None
        deadline = time.monotonic() + _STOP_S
        while pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(_LOOK_S)
        if outer is not None:
            outer.wait()
        self._pid_file.unlink(missing_ok=True)


def _first(children: Path) -> int:
    try:
        return int(children.read_text().split()[0])
    except (OSError, IndexError):
        return 0
