"""The whole system as real processes, with a proxy in each link.

The devices and the edge are at the edge's broker, the collector is at the cloud's, a bridge joins the two,
and the edge asks the model server.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from bus.broker.mosquitto_conf import Bridge
from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker as Address
from bus.mqtt.client import Bus, transient_client_id
from tests.faults import configs
from tests.faults.components import Broker, Command, Component, resume
from tests.faults.pulse import Pulse
from tests.nodes import NODE, toml
from tests.proxy import Proxy, proxy_to
from tests.serving import place

DEVICES = ("device-1", "device-2", "device-3")


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, by name.

    Args:
        folder: For everything that it writes.
        components: Processes.
        links: Proxies: `link device-1` and so on, `link edge` and `link collector` to their brokers,
            `link bridge` between the brokers, `link serving` to the model server.
        answered: Beats with each final answer that an agent prints.
    """

    folder: Path
    components: dict[str, Component]
    links: dict[str, Proxy]
    answered: Pulse

    @property
    def logs(self) -> Path:
        """Where each component writes its log."""
        return self.folder / "logs"

    @property
    def dataset(self) -> Path:
        """The collector's table."""
        return self.folder / "dataset.lance"

    @property
    def edge_database(self) -> Path:
        """The edge's answers and outbox."""
        return self.folder / "edge/edge.db"

    @property
    def devices(self) -> list[Command]:
        """The agents."""
        return [self.command(name) for name in DEVICES]

    def command(self, name: str) -> Command:
        """Return a component that is a `gleaner` command."""
        component = self.components[name]
        assert isinstance(component, Command)
        return component

    def bus(self, broker: str) -> Bus:
        """Return a connection to one of the brokers, past the proxies."""
        component = self.components[broker]
        assert isinstance(component, Broker)
        return Bus(Address(port=component.port, keepalive_s=5), transient_client_id("laboratory"))

    def deaths(self) -> list[str]:
        """Return which processes ended although nobody had ordered it."""
        commands = [component for component in self.components.values() if isinstance(component, Command)]
        return [death for command in commands for death in command.deaths]

    async def heal(self) -> None:
        """Undo every fault: links pass, stopped processes go on, dead and armed ones are started anew."""
        for link in self.links.values():
            link.heal()
        for component in self.components.values():
            resume(component)
            if isinstance(component, Command) and component.armed:
                await component.kill()
            if component.pid is None:
                await component.start()


@asynccontextmanager
async def stack(
    folder: Path, *, interval_s: float = 0.05, variant: str | None = None
) -> AsyncIterator[Stack]:
    """Run the system for the length of a block; whatever happens, nothing of it runs on.

    Args:
        folder: For everything that it writes.
        interval_s: Between the photos of each device.
        variant: A rule of the product to break.
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
        running = Stack(folder, {}, links, Pulse())
        opened.push_async_callback(_kill_all, running)
        for part in (
            _model_server(running, serving, variant),
            Broker("cloud-broker", cloud),
            Broker("edge-broker", edge),
            *_services(running, interval_s, variant),
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
        pulse=Pulse(),
    )


def _services(running: Stack, interval_s: float, variant: str | None) -> list[Command]:
    """Return edge, collector and agents, each with its configuration written."""
    links, folder = running.links, running.folder

    def service(name: str, config: Struct, *words: str) -> Command:
        path = str(toml(config, folder / f"{name}.toml"))
        words = (*words, "--config", path)
        return Command(name, running.logs, *words, variant=variant, pulse=Pulse(running.answered))

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
