"""A machine made of namespaces: its own network, processes, mounts and folders, on the kernel of this one."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import TransientError

SWITCH = "glp-switch"
"""Network namespace of the switch that connects all machines."""
NETWORK = "10.230.0"
"""First three numbers of the addresses of the machines' network `eth0`."""
_BRIDGE = "glp-br"
_CGROUPS = Path("/sys/fs/cgroup")
_INIT = Path(__file__).with_name("init.sh")
_START_S = 30.0
_LOOK_S = 0.02


class MachineError(TransientError):
    """A machine cannot be started, or a command on it failed."""


class Machine:
    """A machine with two interfaces: `eth0` at the switch, and `lan0`, on which this machine reaches it.

    Args:
        name: Its host name.
        number: Determines its addresses, 1 to 99.
        folder: For the files of all machines.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.address = f"{NETWORK}.{number}"
        self.lan = f"10.230.{100 + number}.1"
        """Address under which this machine reaches it, even while `eth0` is down."""
        self._host_lan = f"10.230.{100 + number}.254"
        self._host_link = f"glp-h-{name}"
        self._netns = f"glp-{name}"
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """Process id of its first process; 0 if it is off."""
        try:
            outer = int((self.folder / "outer.pid").read_text())
            pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            return 0
        # After a restart of this machine another process may have the number.
        return pid if str(self.folder).encode() in words else 0

    @property
    def cgroup(self) -> str:
        """Name of the cgroup of its pods."""
        return f"gleaner-{self.name}"

    def root(self, path: str) -> Path:
        """Return the place, on this machine, of one of its own folders."""
        return self.folder / "root" / path.lstrip("/")

    def on(self) -> None:
        """Start it.

        Raises:
            MachineError: It did not start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ready").unlink(missing_ok=True)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n")
        if not (self.folder / "resolv.conf").exists():
            (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._plug_in()
        for group in _controllers():
            (group / self.cgroup).mkdir(exist_ok=True)
        outer = self._spawn(
            [
                "nsenter", f"--net=/run/netns/{self._netns}",
                "unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--mount-proc",
                "--kill-child", "--propagation", "private",
                "sh", str(_INIT), self.name, str(self.folder),
            ],
            self.folder / "init.log",
        )  # fmt: skip
        (self.folder / "outer.pid").write_text(str(outer.pid))
        deadline = time.monotonic() + _START_S
        while not (self.folder / "ready").exists():
            if outer.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name} did not start: {(self.folder / 'init.log').read_text()}")
            time.sleep(_LOOK_S)

    def off(self) -> None:
        """Cut its power: all its processes end at once, its mounts, links and cgroups with them."""
        if pid := self.pid:
            outer = int((self.folder / "outer.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            _wait_gone(pid)
            for started in self._started:
                started.wait()
            self._started.clear()
            _wait_gone(outer)
        (self.folder / "outer.pid").unlink(missing_ok=True)
        _quietly("ip", "netns", "del", self._netns)
        _quietly("ip", "link", "del", self._host_link)
        for group in _controllers():
            _remove_cgroup(group / self.cgroup)

    def forget(self, *paths: str) -> None:
        """Empty folders of the machine while it is off."""
        for path in paths:
            shutil.rmtree(self.root(path), ignore_errors=True)

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a command on the machine.

        Raises:
            MachineError: The machine is off.
        """
        if not (pid := self.pid):
            raise MachineError(f"{self.name} is off")
        return ["nsenter", "-t", str(pid), "-m", "-p", "-n", "-u", "-i", *map(str, words)]

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command on the machine; it ends with the machine at the latest.

        Args:
            command: Program and arguments.
            log: Gets its output.

        Raises:
            MachineError: The machine is off.
        """
        return self._spawn(self.command(*command), log)

    def run(self, *words: str | Path, check: bool = True, timeout_s: float = 600.0) -> str:
        """Run a command on the machine and return what it wrote to stdout.

        Raises:
            MachineError: It failed.
        """
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise MachineError(f"{self.name}: {' '.join(map(str, words))} failed: {done.stderr.strip()}")
        return done.stdout

    def unplug(self) -> None:
        """Cut `eth0`, its connection to the other machines."""
        _ip("-n", self._netns, "link", "set", "eth0", "down")

    def replug(self) -> None:
        """Connect `eth0` again."""
        _ip("-n", self._netns, "link", "set", "eth0", "up")
        _quietly("ip", "-n", self._netns, "route", "replace", "default", "dev", "eth0")

    def _spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._started.append(started)
        return started

    def _plug_in(self) -> None:
        make_switch()
        netns, link, peer = self._netns, f"glp-v-{self.name}", f"glp-p-{self.name}"
        _ip("netns", "add", netns)
        _ip("-n", netns, "link", "set", "lo", "up")
        _ip("link", "add", link, "netns", netns, "type", "veth", "peer", "name", peer, "netns", SWITCH)
        _ip("-n", netns, "link", "set", link, "name", "eth0")
        _ip("-n", netns, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", netns, "link", "set", "eth0", "up")
        _ip("-n", SWITCH, "link", "set", peer, "master", _BRIDGE, "up")
        _ip("-n", netns, "route", "add", "default", "dev", "eth0")
        _ip("link", "add", self._host_link, "type", "veth", "peer", "name", "lan0", "netns", netns)
        _ip("addr", "add", f"{self._host_lan}/24", "dev", self._host_link)
        _ip("link", "set", self._host_link, "up")
        _ip("-n", netns, "addr", "add", f"{self.lan}/24", "dev", "lan0")
        _ip("-n", netns, "link", "set", "lan0", "up")


def made_in(folder: Path) -> list[Machine]:
    """Return all machines with files in a folder, to turn off those of an earlier laboratory."""
    return [Machine(path.name, 0, folder) for path in sorted(folder.glob("*/")) if path.is_dir()]


def remove_mount_points(folder: Path) -> None:
    """Remove the folders that machines made on this one to mount theirs there, if empty."""
    made = folder / "made"
    for path in made.read_text().split() if made.exists() else ():
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    made.unlink(missing_ok=True)


def make_switch() -> None:
    """Create the switch, unless it exists."""
    if Path("/run/netns", SWITCH).exists():
        return
    _ip("netns", "add", SWITCH)
    _ip("-n", SWITCH, "link", "add", _BRIDGE, "type", "bridge")
    _ip("-n", SWITCH, "link", "set", _BRIDGE, "up")


def remove_switch() -> None:
    """Remove the switch, if it exists, and what `ip netns` mounted for the first namespace."""
    _quietly("ip", "netns", "del", SWITCH)
    namespaces = Path("/run/netns")
    if namespaces.is_mount() and not any(namespaces.iterdir()):
        _quietly("umount", str(namespaces))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"ip {' '.join(words)} failed: {done.stderr.strip()}")


def _quietly(*words: str) -> None:
    subprocess.run(words, capture_output=True, check=False)


def _controllers() -> Sequence[Path]:
    """Return the mounted hierarchies of cgroups version 1."""
    return [path for path in sorted(_CGROUPS.iterdir()) if (path / "cgroup.procs").exists()]


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup and those in it; its processes have ended, or are about to."""
    deadline = time.monotonic() + _START_S
    for group in sorted(folder.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
        _rmdir(group, deadline)
    _rmdir(folder, deadline)


def _rmdir(folder: Path, deadline: float) -> None:
    while folder.is_dir():
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise MachineError(f"cannot remove the cgroup {folder}: it has processes") from None
            time.sleep(_LOOK_S)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(_LOOK_S)
    raise MachineError(f"process {pid} did not end")
