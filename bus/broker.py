"""The broker: find or fetch mosquitto, write its configuration, run it.

An installed mosquitto is used as it is. Without one, Debian's package is fetched and unpacked into the
user's cache, which needs neither root nor an installation.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.errors import PermanentError, TransientError

PACKAGES = ("mosquitto", "libcjson1", "libmosquitto1", "libwrap0", "libdlt2")
_INSTALL = "mosquitto: install it with `sudo apt install mosquitto` (or put it on the PATH)"
_APT_S = 120
_START_S = 10.0
_STOP_S = 5.0
_MEMORY_LIMIT_BYTES = 1_000_000_000
# More than the 256 photos that an edge may have in hand, so that even then the next one arrives and is told;
# less than half the 1024 deliveries that a subscription's queue holds, so that none finds it full, not even
# when a new connection brings again what the last one left in it.
_INFLIGHT_MESSAGES = 500


class BrokerError(PermanentError):
    """There is no broker to be had, or it does not start."""


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """A mosquitto that can be run: the binary and the folders of the libraries that it needs."""

    binary: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return the environment to run it in."""
        if not self.libraries:
            return dict(os.environ)
        return dict(os.environ) | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}


def default_cache() -> Path:
    """Return where fetched programs are kept: `$XDG_CACHE_HOME/gleaner`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gleaner"


def find(cache: Path | None = None) -> Mosquitto:
    """Return an installed mosquitto, else one unpacked from Debian's package.

    Raises:
        BrokerError: Neither is to be had; the message says what to install.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    if (installed := shutil.which("mosquitto", path=path)) is not None:
        return Mosquitto(Path(installed))
    folder = (cache or default_cache()) / "mosquitto"
    if not (folder / "usr/sbin/mosquitto").exists():
        _fetch(folder)
    return Mosquitto(folder / "usr/sbin/mosquitto", tuple((folder / "usr/lib").glob("*-linux-gnu*")))


def _fetch(folder: Path) -> None:
    """Download and unpack the packages; the folder appears complete or not at all."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise BrokerError("broker", expected=_INSTALL, got="no mosquitto, and no apt-get to fetch it with")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        packages = partial / "packages"
        packages.mkdir(parents=True)
        if not _download(packages, []):
            # No package lists, or old ones: fetch lists of our own, which needs no root either.
            lists = _own_lists(partial)
            _run(["apt-get", *lists, "update"], partial)
            if not _download(packages, lists):
                raise BrokerError("broker", expected=_INSTALL, got="apt-get could not download it")
        for package in packages.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(partial)], partial)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _own_lists(partial: Path) -> list[str]:
    (partial / "state/lists/partial").mkdir(parents=True)
    (partial / "cache/archives/partial").mkdir(parents=True)
    return ["-o", f"Dir::State={partial}/state", "-o", f"Dir::Cache={partial}/cache"]


def _download(packages: Path, options: list[str]) -> bool:
    return _run(["apt-get", *options, "download", *PACKAGES], packages)


def _run(command: list[str], folder: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  # apt-get and dpkg-deb with arguments of our own
            command, cwd=folder, capture_output=True, timeout=_APT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise BrokerError("broker", expected=_INSTALL, got=error) from None
    return done.returncode == 0


def configuration(port: int, folder: Path, *, address: str = "127.0.0.1") -> str:
    """Return a configuration for one machine: anonymous, loopback only, nothing dropped in silence.

    `max_queued_messages` is 1000 by default, above which mosquitto drops QoS 1 messages without a word; 0
    lifts it, and `memory_limit` refuses loudly instead.
    """
    lines = [
        f"listener {port} {address}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        "max_queued_messages 0",
        f"max_inflight_messages {_INFLIGHT_MESSAGES}",
        f"memory_limit {_MEMORY_LIMIT_BYTES}",
        f"message_size_limit {MAX_PAYLOAD_BYTES}",
        "persistent_client_expiration 7d",
        "set_tcp_nodelay true",
        "sys_interval 2",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it drops to a user that may not read our folder
    return "\n".join(lines) + "\n"


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


class BrokerProcess:
    """A mosquitto of our own, on a port that it keeps through restarts.

    Args:
        folder: For its configuration, log and persistence.
        port: TCP port on loopback; a free one if left out.
        program: The mosquitto to run; `find()` if left out.
    """

    def __init__(self, folder: Path, *, port: int | None = None, program: Mosquitto | None = None) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._program = program or find()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            BrokerError: It ended instead; the message quotes its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "mosquitto.conf"
        config.write_text(configuration(self.port, self._folder), encoding="utf-8")
        log_path = self._folder / "mosquitto.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the mosquitto that find() chose
                [str(self._program.binary), "-c", str(config)],
                env=self._program.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the one who started us; they end it in order
            )
        self._await_listening(log_path)

    def stop(self) -> None:
        """End it in order: it saves what it holds."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it at once, as a power cut would: what it held in memory is lost."""
        self._end(kill=True)

    def wait(self) -> int:
        """Wait until it ends and return its exit code."""
        return 0 if self._process is None else self._process.wait()

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await_listening(self, log_path: Path) -> None:
        deadline = time.monotonic() + _START_S
        while not listens(self.port):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self._end(kill=True)
                tail = log_path.read_text(errors="replace").strip().splitlines()[-3:]
                raise BrokerError(f"mosquitto on port {self.port}", expected="to start", got=" | ".join(tail))
            time.sleep(0.02)


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


@contextmanager
def local_broker(folder: Path, *, port: int | None = None) -> Iterator[BrokerProcess]:
    """Run a broker for the length of a `with` block.

    Raises:
        BrokerError: No mosquitto, or it does not start.
        TransientError: The wanted port is taken.
    """
    if port is not None and listens(port):
        raise TransientError(f"port {port}", expected="to be free for the broker", got="one that is in use")
    broker = BrokerProcess(folder, port=port)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
