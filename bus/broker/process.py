"""Run mosquitto as a child process."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bus.broker import stray
from bus.broker.locate import BrokerError, Mosquitto, find_mosquitto
from bus.broker.mosquitto_conf import Access, Bridge, configuration
from schemas.errors import TransientError

# Only for busy machines: a mosquitto that cannot start exits, and one that is killed saves nothing.
_START_S = 60.0
_STOP_S = 30.0
_POLL_S = 0.02
_CONNECT_S = 1.0
_QUOTED_LOG_LINES = 3
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(*, count: int = 1) -> int:
    """Return a TCP port that is free on loopback, reserved for this process until it ends.

    No other process gets the port from this function, not even while its server restarts or has yet to start.

    Args:
        count: How many consecutive ports to reserve; the first one is returned.
    """
    while True:
        first = random.choice(_ports())  # noqa: S311  # a port is not secret
        with contextlib.suppress(OSError), contextlib.ExitStack() as bound:
            for port in range(first, first + count):
                bound.enter_context(socket.socket()).bind(("127.0.0.1", port))
                _reserve(port)
            return first


def _ports() -> range:
    """Return the unprivileged ports that the kernel does not give to outgoing connections."""
    with contextlib.suppress(OSError):
        first, last = map(int, _EPHEMERAL.read_text(encoding="ascii").split())
        if ports := max(range(10_000, first), range(last + 1, 65_000), key=len):
            return ports
    return range(20_000, 32_000)


def _reserve(port: int) -> None:
    """Reserve a port among all processes that use `free_port`; raises OSError if it is reserved."""
    name = socket.socket(socket.AF_UNIX)
    try:
        # An abstract name exists once per machine, needs no file, and is freed with the process.
        name.bind(f"\0gleaner-port-{port}")
    except OSError:
        name.close()
        raise
    name.detach()  # the descriptor stays open: garbage collection must not end the reservation


class BrokerProcess:
    """A mosquitto process that keeps its port when it is restarted.

    Args:
        folder: For its configuration, log and persistence.
        port: TCP port on loopback; a free one if None.
        program: The mosquitto to run; `find_mosquitto()` if None.
        access: TLS and ACL; if None, any client on this machine may connect.
        bridge: Bridge to the cloud's broker, for an edge node.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        program: Mosquitto | None = None,
        access: Access | None = None,
        bridge: Bridge | None = None,
    ) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._access = access
        self._bridge = bridge
        self._program = program or find_mosquitto()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start mosquitto and wait until it listens. Blocks the calling thread.

        Raises:
            BrokerError: It ended, or did not listen within 60 s; the message quotes its log.
        """
        stray.end_stray(self._folder)
        if is_listening(self.port):  # otherwise the other program would pass for this broker until it ends
            raise BrokerError(f"cannot start mosquitto: port {self.port} is in use by another program")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "mosquitto.conf"
        # Started by root, mosquitto would switch to a user that may not read this folder.
        user = "root" if os.geteuid() == 0 else None
        text = configuration(self.port, self._folder, access=self._access, bridge=self._bridge, user=user)
        config.write_text(text, encoding="utf-8")
        log_path = self._folder / "mosquitto.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the mosquitto that find_mosquitto() returned
                [str(self._program.binary), "-c", str(config)],
                env=self._program.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not end it before the process that uses it
            )
        stray.note(self._folder, self._process.pid)
        self._wait_listening(log_path)

    def stop(self) -> None:
        """Stop mosquitto with SIGTERM: it saves sessions and messages."""
        self._end(kill=False)

    def kill(self) -> None:
        """Kill mosquitto with SIGKILL, like a power cut: what it held in memory is lost."""
        self._end(kill=True)

    def wait(self) -> int:
        """Wait until mosquitto ends and return its exit code, 0 if it does not run."""
        return 0 if self._process is None else self._process.wait()

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(_STOP_S)  # saving a large persistence file takes a while
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stray.forget(self._folder)

    def _wait_listening(self, log_path: Path) -> None:
        ports = [self.port] if self._access is None else [self.port, self.port + 1]
        deadline = time.monotonic() + _START_S
        while not (all(map(is_listening, ports)) and self._catches_sigterm()):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self._end(kill=True)
                tail = log_path.read_text(errors="replace").strip().splitlines()[-_QUOTED_LOG_LINES:]
                raise BrokerError(f"mosquitto did not start on port {self.port}: {' | '.join(tail)}")
            time.sleep(_POLL_S)

    def _catches_sigterm(self) -> bool:
        """Return True if SIGTERM makes mosquitto save its state: it listens before it handles signals."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        except OSError:  # it ended
            return False
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    """Return True if a server accepts TCP connections on a port. Blocks for at most 1 s."""
    try:
        with socket.create_connection((address, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def local_broker(folder: Path, *, port: int | None = None) -> Iterator[BrokerProcess]:
    """Run a broker for the duration of a `with` block.

    Args:
        folder: For its configuration, log and persistence.
        port: TCP port on loopback; a free one if None.

    Raises:
        BrokerError: mosquitto is not available, or does not start.
        TransientError: The port is in use.
    """
    stray.end_stray(folder)
    if port is not None and is_listening(port):
        raise TransientError(
            f"cannot start a broker on port {port}: it is in use", hint="choose another port with --port"
        )
    broker = BrokerProcess(folder, port=port)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
