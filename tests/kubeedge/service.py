"""A process of the laboratory, which a later command finds by its pid file."""

import os
import signal
import subprocess
import time
from pathlib import Path

_STOP_S = 15.0
_BEGIN_S = 2.0
_LOOK_S = 0.05
_TAIL_LINES = 5


class Service:
    """A process that runs until it is stopped, even after the process that started it.

    Args:
        name: Name of the service, and of its log and pid files.
        folder: Folder of the laboratory.
        command: Program and arguments.
        environment: Its environment; None for that of this process.
    """

    def __init__(
        self, name: str, folder: Path, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._environment = environment
        self._pid_file = folder / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 if it does not run."""
        return running(self._pid_file)

    def start(self) -> None:
        """Start it without waiting until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # a program of the laboratory
                self._command,
                cwd=self.log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not reach it: processes are stopped in order
            )
        self._pid_file.write_text(f"{self._process.pid} {self._command[0]}", encoding="utf-8")

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, like a power cut."""
        self._end(signal.SIGKILL)

    def ended(self) -> int | None:
        """Return the exit code if the process has ended, else None."""
        return None if self._process is None else self._process.poll()

    def tail(self) -> str:
        """Return the last lines of its log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:])

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._pid_file.unlink(missing_ok=True)


def running(pid_file: Path) -> int:
    """Return the pid in a file if that process still runs the same program, else 0."""
    try:
        pid, program = pid_file.read_text(encoding="utf-8").split(" ", 1)
        command = _command(pid)
    except (OSError, ValueError):
        return 0
    return int(pid) if command.startswith(program.encode() + b"\0") else 0


def _command(pid: str) -> bytes:
    """Return the command line of a process, which is empty before exec and after the end."""
    process, deadline = Path("/proc", pid), time.monotonic() + _BEGIN_S
    while not (command := (process / "cmdline").read_bytes()) and time.monotonic() < deadline:
        if (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(_LOOK_S)
    return command


def end(pid_file: Path) -> bool:
    """Stop the process of a pid file; return True if it was running."""
    if not (pid := running(pid_file)):
        pid_file.unlink(missing_ok=True)
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while running(pid_file):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)
    pid_file.unlink(missing_ok=True)
    return True


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
