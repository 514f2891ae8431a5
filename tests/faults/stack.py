"""The whole system as real processes, with a proxy in each connection.

Devices and edge connect to the edge's broker, the collector to the cloud's; a bridge connects the brokers,
and the edge calls the model server.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from bus.broker.mosquitto_conf import Bridge
from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker as Address
from bus.mqtt.client import Bus, transient_client_id
from tests.faults import configs, preload
from tests.faults.components import Broker, Command, Component, resume
from tests.faults.event_counter import EventCounter
from tests.nodes import NODE, toml
from tests.proxy import Proxy, proxy_to
from tests.serving import place

DEVICES = ("device-1", "device-2", "device-3")


@dataclass(frozen=True, slots=True)
class Stack:
    """The running processes and proxies, by name.

    Args:
        folder: For all files.
        components: Processes.
        links: Proxies: `link device-1` and so on, `link edge` and `link collector` to their brokers,
            `link bridge` between the brokers, `link serving` to the model server.
        answered: Counts the final answers that the devices print.
        died: Set when a process ended without the test's doing.
    """

    folder: Path
    components: dict[str, Component]
    links: dict[str, Proxy]
    answered: EventCounter
    died: asyncio.Event

    @property
    def logs(self) -> Path:
        """Folder of the components' logs."""
        return self.folder / "logs"

    @property
    def dataset(self) -> Path:
        """The collector's table."""
        return self.folder / "dataset.lance"

    @property
    def edge_database(self) -> Path:
        """The edge's database: answers and outbox."""
        return self.folder / "edge/edge.db"

    @property
    def devices(self) -> list[Command]:
        """The devices."""
        return [self.command(name) for name in DEVICES]

    def command(self, name: str) -> Command:
        """Return a component that is a `gleaner` command."""
        component = self.components[name]
        assert isinstance(component, Command)
        return component

    def bus(self, broker: str) -> Bus:
        """Return a direct connection to one of the brokers, not through a proxy."""
        component = self.components[broker]
        assert isinstance(component, Broker)
        return Bus(Address(port=component.port, keepalive_s=5), transient_client_id("laboratory"))

    def deaths(self) -> list[str]:
        """Return the processes that ended without the test's doing."""
        commands = [component for component in self.components.values() if isinstance(component, Command)]
        return [death for command in commands for death in command.deaths]

    async def heal(self) -> None:
        """Remove all faults: connections work, suspended processes resume, killed and armed ones restart."""
        for link in self.links.values():
            link.heal()
        for component in self.components.values():
            resume(component)
            if isinstance(component, Command) and component.preload is not None:
                component.preload.set()
            if isinstance(component, Command) and (component.armed or component.stopping):
                await component.kill()
            if component.pid is None:
                await component.start()


@asynccontextmanager
async def stack(
    folder: Path, *, interval_s: float = 0.05, variant: str | None = None
) -> AsyncIterator[Stack]:
    """Run the system for the duration of a block; all processes are killed at its end.

    Args:
        folder: For all files.
        interval_s: Seconds between the photos of each device.
        variant: Rule of the product to break.
    """
    (folder / "logs").mkdir(parents=True)
    configs.take_photos(folder / "photos")
    place("straight", folder / "models/pets", 1)
    async with AsyncExitStack() as opened:
        cloud, serving = BrokerProcess(folder / "cloud-broker"), free_port()
        bridge = await opened.enter_async_context(proxy_to(cloud.port))
        edge = BrokerProcess(folder / "edge-broker", bridge=Bridge(NODE, "127.0.0.1", bridge.port))
        links = {"link bridge": bridge}
        ports = {"serving": serving, "edge": edge.port, "collector": cloud.port}
        for name, port in (ports | dict.fromkeys(DEVICES, edge.port)).items():
            links[f"link {name}"] = await opened.enter_async_context(proxy_to(port))
        running = Stack(folder, {}, links, EventCounter(), asyncio.Event())
        opened.push_async_callback(_kill_all, running)
        library = await asyncio.to_thread(preload.build, folder)
        for part in (
            _model_server(running, serving, variant),
            Broker("cloud-broker", cloud),
            Broker("edge-broker", edge),
            *_services(running, interval_s, variant, library),
        ):
            running.components[part.name] = part
            await part.start()
        yield running


async def _kill_all(running: Stack) -> None:
    for component in reversed(running.components.values()):
        await component.kill()


def _model_server(running: Stack, port: int, variant: str | None) -> Command:
    return Command(
        "model-server",
        running.logs,
        "modelserver",
        "--model_name=pets",
        f"--model_base_path={running.folder / 'models/pets'}",
        f"--port={port}",
        "--grpc_max_threads=4",
        variant=variant,
        counter=EventCounter(),
        died=running.died,
    )


def _services(running: Stack, interval_s: float, variant: str | None, library: Path | None) -> list[Command]:
    """Return edge, collector and devices, with their configurations written."""
    links, folder = running.links, running.folder

    def service(name: str, config: Struct, *words: str) -> Command:
        path = str(toml(config, folder / f"{name}.toml"))
        words = (*words, "--config", path)
        return Command(
            name,
            running.logs,
            *words,
            variant=variant,
            counter=EventCounter(running.answered),
            preload=None if library is None else preload.Preload(library, folder / f"{name}.page", folder),
            died=running.died,
        )

    return [
        service("collector", configs.collector(links["link collector"].port, folder), "cloud", "collect"),
        service("edge", configs.edge(links["link edge"].port, links["link serving"].port, folder), "edge"),
        *(
            service(
                name, configs.device(name, links[f"link {name}"].port, folder, interval_s), "device", "--json"
            )
            for name in DEVICES
        ),
    ]
