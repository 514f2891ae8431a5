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

# Only for busy machines: a mosquitto that cannot start ends by itself, and one that is killed saves nothing.
_START_S = 60.0
_STOP_S = 30.0
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(address: str = "127.0.0.1", *, count: int = 1) -> int:
    """Return a free TCP port, reserved for this process until it ends.

    No other process gets the port from this function, not even while its server restarts or has yet to start.

    Args:
        address: The address that the server will bind.
        count: How many consecutive ports to reserve; the first one is returned.
    """
    while True:
        first = random.choice(_ports())  # noqa: S311  # a port is no secret
        with contextlib.suppress(OSError), contextlib.ExitStack() as bound:
            for port in range(first, first + count):
                bound.enter_context(socket.socket()).bind((address, port))
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
        if is_listening(self.port):  # otherwise the other program would pass for this broker until it ends
            raise BrokerError(f"cannot start mosquitto: port {self.port} is in use by another program")
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
