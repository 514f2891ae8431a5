"""The broker as a process of our own."""

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
_PORTS = range(20_000, 32_768)  # below those that Linux gives to outgoing connections


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that is free now, and stays free while its server restarts."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311  # a port is no secret
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((address, port))
            return port


class BrokerProcess:
    """A mosquitto of our own, on a port that it keeps through restarts.

    Args:
        folder: For its configuration, log and persistence.
        port: TCP port on loopback; a free one if left out.
        program: The mosquitto to run; `find_mosquitto()` if left out.
        access: Certificates and rights; without, anybody on this machine.
        bridge: To the cloud's broker, for an edge node's.
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
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            BrokerError: It ended instead; the message quotes its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "mosquitto.conf"
        # Started by root it would become a user that may not read our folder.
        user = "root" if os.geteuid() == 0 else None
        text = configuration(self.port, self._folder, access=self._access, bridge=self._bridge, user=user)
        config.write_text(text, encoding="utf-8")
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
        while not is_listening(self.port):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self._end(kill=True)
                tail = log_path.read_text(errors="replace").strip().splitlines()[-3:]
                raise BrokerError(f"mosquitto on port {self.port}", expected="to start", got=" | ".join(tail))
            time.sleep(0.02)


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def local_broker(folder: Path, *, port: int | None = None) -> Iterator[BrokerProcess]:
    """Run a broker for the length of a `with` block.

    Raises:
        BrokerError: No mosquitto, or it does not start.
        TransientError: The wanted port is taken.
    """
    if port is not None and is_listening(port):
        raise TransientError(f"port {port}", expected="to be free for the broker", got="one that is in use")
    broker = BrokerProcess(folder, port=port)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
