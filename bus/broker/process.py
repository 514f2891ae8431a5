"""Run mosquitto as a child process."""

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bus.broker.locate import BrokerError, Mosquitto, find_mosquitto
from bus.broker.mosquitto_conf import Access, Bridge, configuration
from schemas.errors import TransientError

_START_S = 10.0
_STOP_S = 5.0
_POLL_S = 0.02
_CONNECT_S = 1.0
_QUOTED_LOG_LINES = 3
_PORTS = range(20_000, 32_768)  # below Linux's ephemeral ports, which outgoing connections take


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that is free now, and that no outgoing connection takes while its server restarts."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311  # a port is no secret
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((address, port))
            return port


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
            BrokerError: It ended, or did not listen within 10 s; the message quotes its log.
        """
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
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_listening(self, log_path: Path) -> None:
        ports = [self.port] if self._access is None else [self.port, self.port + 1]
        deadline = time.monotonic() + _START_S
        while not all(map(is_listening, ports)):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self._end(kill=True)
                tail = log_path.read_text(errors="replace").strip().splitlines()[-_QUOTED_LOG_LINES:]
                raise BrokerError(f"mosquitto did not start on port {self.port}: {' | '.join(tail)}")
            time.sleep(_POLL_S)


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
        BrokerError: There is no mosquitto, or it does not start.
        TransientError: The port is in use.
    """
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
