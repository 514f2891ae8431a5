"""The whole system as real processes, with a proxy in each link.

    device-n ─▶ edge-broker ◀─ edge ─▶ model-server
                    │ bridge
                cloud-broker ◀─ collector
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from bus.broker import BrokerProcess, free_port, listens
from bus.broker_config import Bridge
from bus.config import Broker as Address
from bus.config import OutboxLimits
from cloud.config import CollectorConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from schemas.messages import Caps, HarvestRules
from tests.faults import components
from tests.faults.components import Command, Component
from tests.faults.ledger import BROKEN
from tests.faults.pulse import Pulse
from tests.nodes import NODE, photo, toml, truncated
from tests.proxy import Proxy, proxy_to
from tests.serving import place

TRUTHS = {"red": "cat", "blue": "dog"}
"""What the model says of a photo by its colour."""

_START_S = 60.0
_KEEPALIVE_S = 5
_MANY = 1_000_000
_RESEND = OutboxLimits(resend_first_s=2.0, resend_cap_s=10.0)
_CAPS = Caps(
    **dict.fromkeys(("per_minute", "per_hour", "per_day"), _MANY),
    **dict.fromkeys(("bytes_per_minute", "bytes_per_hour", "bytes_per_day"), _MANY * 10_000),
)
# Every photo gets a lane, none is a duplicate: so each one tests both guarantees.
_RULES = HarvestRules(auto_confidence=0.5, hard_confidence=0.5, near_duplicate_s=0, caps=_CAPS)


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, by name.

    Args:
        folder: For everything that it writes.
        components: Processes.
        links: Proxies: `device-n`, `edge` and `collector` to their brokers, `bridge` between the brokers,
            `serving` to the model server.
        answered: Beats with each final answer that an agent prints.
    """

    folder: Path
    components: dict[str, Component]
    links: dict[str, Proxy]
    answered: Pulse

    @property
    def devices(self) -> list[Command]:
        """The agents."""
        return [self.command(name) for name in self.components if name.startswith("device-")]

    @property
    def dataset(self) -> Path:
        """The collector's table."""
        return self.folder / "dataset.lance"

    @property
    def edge_database(self) -> Path:
        """The edge's answers and outbox."""
        return self.folder / "edge/edge.db"

    def command(self, name: str) -> Command:
        """Return a component that is a `gleaner` command."""
        component = self.components[name]
        assert isinstance(component, Command)
        return component

    def deaths(self) -> list[str]:
        """Return which processes ended although nobody had ordered it."""
        return [
            death
            for component in self.components.values()
            if isinstance(component, Command)
            for death in component.deaths
        ]

    async def start(self) -> None:
        """Start everything, the model server first because it takes longest."""
        for component in self.components.values():
            await component.start()
        await self.until_serving()

    async def until_serving(self) -> None:
        """Wait until the model server listens."""
        port = int(self.command("model-server").words[-1].rpartition("=")[2])
        async with asyncio.timeout(_START_S):
            while not await asyncio.to_thread(listens, port):
                await asyncio.sleep(0.05)

    async def heal(self) -> None:
        """Undo every fault: links pass, stopped processes go on, dead ones are started."""
        for link in self.links.values():
            link.heal()
        for component in self.components.values():
            components.resume(component)
            if component.pid is None:
                await component.start()


@asynccontextmanager
async def stack(
    folder: Path, *, devices: int = 3, interval_s: float = 0.05, variant: str | None = None
) -> AsyncIterator[Stack]:
    """Run the system for the length of a block.

    Args:
        folder: For everything that it writes.
        devices: Number of agents.
        interval_s: Between the photos of each.
        variant: A rule of the product to break.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True)
    take_photos(folder / "photos")
    place("straight", folder / "models/pets", 1)
    answered = Pulse()
    async with AsyncExitStack() as opened:

        async def link(port: int) -> Proxy:
            return await opened.enter_async_context(proxy_to(port))

        cloud = BrokerProcess(folder / "cloud-broker")
        bridge = await link(cloud.port)
        edge = BrokerProcess(folder / "edge-broker", bridge=Bridge(NODE, "127.0.0.1", bridge.port))
        serving_port = free_port()
        links = {
            "bridge": bridge,
            "serving": await link(serving_port),
            "edge": await link(edge.port),
            "collector": await link(cloud.port),
        }

        def command(name: str, *words: str) -> Command:
            return Command(name, logs, *words, variant=variant, pulse=Pulse(answered))

        def service(name: str, config: Struct, *words: str) -> Command:
            return command(name, *words, "--config", str(toml(config, folder / f"{name}.toml")), "--log-level", "debug")

        parts: list[Component] = [
            command(
                "model-server",
                "modelserver",
                "--model_name=pets",
                f"--model_base_path={folder / 'models/pets'}",
                "--grpc_max_threads=4",
                f"--port={serving_port}",
            ),
            components.Broker("cloud-broker", cloud),
            components.Broker("edge-broker", edge),
            service("collector", _collector(links["collector"], folder), "cloud", "collect"),
            service("edge", _edge(links["edge"], links["serving"], folder), "edge"),
        ]
        for number in range(devices):
            name = f"device-{number + 1}"
            links[name] = await link(edge.port)
            parts.append(service(name, _device(name, links[name], folder, interval_s), "device", "--json"))
        running = Stack(folder, {part.name: part for part in parts}, links, answered)
        opened.push_async_callback(_kill_all, running)
        await running.start()
        yield running


async def _kill_all(running: Stack) -> None:
    for component in reversed(running.components.values()):
        await component.kill()


def take_photos(folder: Path, count: int = 200) -> None:
    """Draw the known photos: a folder for each label, one in fifty broken."""
    draw = random.Random(7)
    for number in range(count):
        colour = draw.choice(list(TRUTHS))
        image, label = photo(number, colour, (180, 160)), TRUTHS[colour]
        if number % 50 == 49:
            image, label = truncated(image), BROKEN
        path = folder / label / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def _address(link: Proxy) -> Address:
    return Address(port=link.port, keepalive_s=_KEEPALIVE_S)


def _collector(broker: Proxy, folder: Path) -> CollectorConfig:
    return CollectorConfig(
        broker=_address(broker), dataset=str(folder / "dataset.lance"), batch=32, compact_every=20
    )


def _edge(broker: Proxy, serving: Proxy, folder: Path) -> EdgeConfig:
    return EdgeConfig(
        node=NODE,
        broker=_address(broker),
        serving=f"127.0.0.1:{serving.port}",
        models_dir=str(folder / "models"),
        state_dir=str(folder / "edge"),
        predict_timeout_s=5.0,
        harvest=_RULES,
        outbox=_RESEND,
    )


def _device(name: str, broker: Proxy, folder: Path, interval_s: float) -> DeviceConfig:
    return DeviceConfig(
        node=NODE,
        name=name,
        broker=_address(broker),
        camera=f"folder:{folder / 'photos'}?loop=1&shuffle={name[-1]}",
        interval_s=interval_s,
        state_dir=str(folder / name),
        answers_kept=_MANY,
        outbox=_RESEND,
    )
