"""Run a whole system for a local network on this machine: brokers, model server, edge handler and collector.

The first start provisions a site with keys and certificates in DIR; each later one uses them, and adds the
devices that are new. Everything is kept in DIR: keys, dataset, models, state and logs.
"""

import asyncio
import getpass
import io
import shlex
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bus.backoff import backoff
from bus.broker.discovery import announced
from bus.broker.process import is_listening
from cli import broker_address, exit_codes, options, provision, run_service
from cli.output import print_line
from cli.parser import Parser
from cli.supervisor import Supervisor
from schemas.distribution import install_command
from schemas.errors import GleanerError, PermanentError, TransientError

_PORT = 8883
_LISTENING_S = 240.0
"""Time in seconds for the brokers to listen: a mosquitto that is not installed is downloaded first."""
_POLL_S = 0.1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path("site"), metavar="DIR", help="folder of all (site)"
    )
    parser.add_argument(
        "--host", help="name or address of this machine for the devices (its address in the network)"
    )
    parser.add_argument(
        "--port",
        type=broker_address.port,
        default=_PORT,
        help="TCP port for devices; the next four are used too, the last on loopback only "
        f"(default: {_PORT})",
    )
    parser.add_argument("--node", type=options.node, default="edge-1", help="edge node (default: edge-1)")
    parser.add_argument(
        "--devices", type=options.names, default=["pi-1"], help="comma-separated devices (default: pi-1)"
    )
    parser.add_argument(
        "--qr", action="store_true", help="print each device's line as a QR code too, to copy it by phone"
    )
    parser.add_argument("--model", default="pets", help="name of the model (default: pets)")


@dataclass(frozen=True, slots=True)
class System:
    """Places and ports of one system.

    Args:
        folder: Absolute path of everything.
        host: Name or address of this machine for the devices.
        port: TCP port of the node's broker for devices.
        node: The edge node.
        devices: Its devices.
        model: Name of the model.
    """

    folder: Path
    host: str
    port: int
    node: str
    devices: tuple[str, ...]
    model: str

    @property
    def ports(self) -> tuple[int, int]:
        """The first port of each broker: the node's, and the cloud's; each uses the next one too."""
        return self.port, self.port + 2

    @property
    def serving_port(self) -> int:
        """TCP port of the model server, on loopback."""
        return self.port + 4

    def brokers(self) -> Iterator[tuple[str, list[str]]]:
        """Yield name and command of each broker."""
        for name, folder in (("cloud-broker", "cloud"), ("edge-broker", f"edges/{self.node}")):
            yield name, ["broker", "--config", str(self.folder / folder / "mosquitto.conf")]

    def services(self) -> Iterator[tuple[str, list[str]]]:
        """Yield name and command of everything else."""
        serving, edge = self.folder / "serving", self.folder / f"edges/{self.node}/edge.toml"
        model = ["--model_name", self.model, "--model_base_path", str(serving / self.model)]
        yield "modelserver", ["modelserver", *model, "--port", str(self.serving_port)]
        places = ["--models-dir", str(serving), "--state-dir", str(self.folder / "state")]
        address = ["--model", self.model, "--serving", f"127.0.0.1:{self.serving_port}"]
        yield "edge", ["edge", "--config", str(edge), *places, *address]
        table = ["--dataset", str(self.folder / "dataset.lance")]
        yield "collector", ["cloud", "collect", "--config", str(self.folder / "cloud/collector.toml"), *table]

    def device_line(self, device: str) -> str:
        """Return the command that fetches a device's keys and starts its agent, to type on the device."""
        name = f"{self.node}.{device}"
        source = f"{getpass.getuser()}@{self.host}:{self.folder / 'devices' / name}"
        files = "--ca ca.pem --cert device.pem --key device.key"
        place = f"--node {self.node} --name {device} --broker {self.host}:{self.port}"
        fetch = f"scp -r {shlex.quote(source)} ."
        return f"{fetch} && cd {name} && gleaner device {place} {files} --camera picamera"


def run(arguments: Namespace) -> int:
    """Provision what is missing, and run until a signal arrives or one of the processes ends."""
    system = System(
        folder=arguments.directory.absolute(),
        host=arguments.host or own_address(),
        port=arguments.port,
        node=arguments.node,
        devices=tuple(arguments.devices),
        model=arguments.model,
    )
    _provision(system)
    (system.folder / "serving" / system.model).mkdir(parents=True, exist_ok=True)
    run_service.run(_run(system, codes=arguments.qr))
    return exit_codes.OK


def own_address() -> str:
    """Return this machine's address in its network, or the loopback address without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of the documentation range: only chooses a route, sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


def _provision(system: System) -> None:
    edge, cloud = system.ports
    parser = Parser(prog="gleaner provision")
    provision.add_arguments(parser)
    words = [str(system.folder), "--cloud", f"{system.host}:{cloud}", "--edge", system.node]
    words += ["--edge-host", f"{system.host}:{edge}", "--devices", ",".join(system.devices)]
    provision.run(parser.parse_args(words))


async def _run(system: System, *, codes: bool) -> None:
    async with Supervisor(system.folder / "logs", (sys.executable, "-P", "-m", "gleaner")) as processes:
        for name, words in system.brokers():
            await processes.start(name, words, last=True)
        ended = asyncio.create_task(processes.wait_for_end(), name="up.watch")
        listening = asyncio.create_task(_until_listening(system), name="up.listening")
        try:
            await asyncio.wait((ended, listening), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await listening
                for name, words in system.services():
                    await processes.start(name, words)
                _print_next_steps(system, codes=codes)
                async with _announcement(system):
                    await ended
            await ended
        finally:
            ended.cancel()
            listening.cancel()


async def _until_listening(system: System) -> None:
    """Wait until both brokers accept connections.

    Raises:
        TransientError: One does not in time.
    """
    try:
        async with asyncio.timeout(_LISTENING_S):
            for port in system.ports:
                for delay_s in backoff(_POLL_S, _POLL_S):
                    if await asyncio.to_thread(is_listening, port, system.host):
                        break
                    await asyncio.sleep(delay_s)
    except TimeoutError:
        logs = system.folder / "logs"
        raise TransientError(f"the brokers did not listen within {_LISTENING_S:g} s; see {logs}") from None


@asynccontextmanager
async def _announcement(system: System) -> AsyncIterator[None]:
    """Announce the node's broker during a block; if that fails, print a warning."""
    try:
        address = str(IPv4Address(system.host))
    except ValueError:  # a name
        address = own_address()
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(announced(system.node, system.host, system.port, address))
        except GleanerError as error:
            print_line(f"not announced in the network, so 'gleaner device --discover' will not work: {error}")
        yield


def _code(text: str) -> str:
    """Return a text as a QR code of half blocks, two modules a character.

    Raises:
        PermanentError: The package `segno` is not installed.
    """
    try:
        import segno  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        raise PermanentError(
            "QR codes are drawn by the package 'segno', which is not installed",
            hint=f"install it with: {install_command('lan')}",
        ) from None
    drawn = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(drawn, compact=True)
    return drawn.getvalue()


def _print_next_steps(system: System, *, codes: bool) -> None:
    print_line(f"running; Ctrl-C stops everything; logs are in {system.folder / 'logs'}")
    for device in system.devices:
        line = system.device_line(device)
        print_line(f"on {device}: {line}")
        if codes:
            print_line(_code(line))
    folder = system.folder
    print_line(f"check: gleaner doctor --config {folder}/operator/{system.node}.toml --node {system.node}")
    key = folder / "authority/signing.key"
    print_line(
        f"release: gleaner cloud release BUNDLE --config {folder}/cloud/rollout.toml --signing-key {key}"
    )
