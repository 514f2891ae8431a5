"""Gleaner on the laboratory.

Each node has an edge handler, a model server and a camera; the cloud has a broker, a collector and a gateway.
All are processes started by their normal commands. EventBus is the only connection between edge and cloud.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker as Address
from bus.gateway.config import GatewayConfig
from bus.gateway.rules.rules import NAMESPACE
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.subscription import Subscription
from schemas.errors import CodecError
from schemas.messages import Receipt, Result, Status
from schemas.topics import RECEIPT, RESULT, STATUS
from tests.cli.conftest import Done, gleaner
from tests.conftest import running
from tests.faults import configs, databases
from tests.faults.components import Broker, Command, Component
from tests.faults.event_counter import EventCounter
from tests.faults.laboratory import finish
from tests.faults.ledger import Ledger, compare
from tests.kubeedge import objects
from tests.kubeedge.lab import Lab
from tests.kubeedge.service import write_private
from tests.nodes import toml
from tests.serving import place

INTERVAL_S = 0.25
"""Seconds between the photos of a camera."""
_COMES_THROUGH_S = 180.0
_DRAIN_S = 240.0
_LOOK_S = 0.5


@dataclass(slots=True)
class Seen:
    """What was observed at the broker of a node."""

    receipts: EventCounter = field(default_factory=EventCounter)
    versions: set[int] = field(default_factory=set)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All processes by name; those of a node by the name of the node.

    Args:
        lab: The laboratory, with its edge nodes connected.
        folder: For all files.
        listen: Address at which the gateway receives the Router's requests.
        broker: The cloud's broker.
    """

    lab: Lab
    folder: Path
    listen: str
    broker: Broker
    cloud: dict[str, Command] = field(default_factory=dict)
    edges: dict[str, Command] = field(default_factory=dict)
    devices: dict[str, Command] = field(default_factory=dict)
    servers: dict[str, Command] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def components(self) -> list[Component]:
        """All processes, in start order."""
        parts = (self.cloud, self.servers, self.edges, self.devices)
        return [self.broker, *(command for part in parts for command in part.values())]

    @property
    def dataset(self) -> Path:
        """The collector's table."""
        return self.folder / "dataset.lance"

    def at(self, node: str) -> Path:
        """Return the folder of a node."""
        return self.folder / node

    def cloud_bus(self) -> Bus:
        """Return a connection to the cloud's broker."""
        return Bus(Address(port=self.broker.port), transient_client_id("fleet"))

    async def deploy(self, step: str, *words: str) -> Done:
        """Run a subcommand of `gleaner deploy` against the laboratory's API server."""
        token = self.folder / "token"
        write_private(token, self.lab.api.token)
        server = ("--server", f"https://127.0.0.1:{self.lab.ports.apiserver}", "--server-token", token)
        where = ("--server-ca", self.lab.api.authority, "--gateway", f"http://{self.listen}")
        if step == "verify":
            words = ("--router", self._router, "--broker", f"127.0.0.1:{self.broker.port}", *words)
        return await gleaner("deploy", step, *server, *where, *words)

    async def apply_rules(self) -> int:
        """Render and create the Rules of the cluster's nodes; return the number of objects."""
        out = self.folder / "rules"
        rendered = await self.deploy("render", "--out", str(out))
        assert rendered.code == 0, rendered.err
        things = list(yaml.safe_load_all((out / "rules.yaml").read_text(encoding="utf-8")))
        for thing in things:
            paths = {"RuleEndpoint": objects.endpoints_path, "Rule": objects.rules_path}
            await self.lab.api.create(paths[thing["kind"]](NAMESPACE), thing)
        return len(things)

    async def comes_through(self) -> float:
        """Wait until each node has a new receipt; return the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(_COMES_THROUGH_S):
            await asyncio.gather(*(seen.receipts.next() for seen in self.seen.values()))
        return time.monotonic() - began

    def counted(self, name: str) -> int:
        """Return the sum of a counter over all runs of the edges, as far as it was reported."""
        return sum(
            counters.get(name, 0) for seen in self.seen.values() for counters in seen.counters.values()
        )

    async def settle(self) -> Ledger:
        """Stop the cameras, wait until everything is answered, stored and has receipts, and compare."""
        async with asyncio.timeout(_DRAIN_S):
            await asyncio.gather(*(finish(device) for device in self.devices.values()))
            for node, edge in self.edges.items():
                while databases.read_running(self._edge_database(node), edge).waiting:  # noqa: ASYNC110  # a file has no event
                    await asyncio.sleep(_LOOK_S)
        for command in (*self.devices.values(), *self.edges.values()):
            await command.stop()
        edges = [databases.read(self._edge_database(node)) for node in self.edges]
        photos = (self.folder / "photos").rglob("*.jpg")
        return compare(
            [databases.read(self.at(node) / f"camera/{name_of(node)}.db") for node in self.devices],
            databases.Contents(answers=tuple(answer for edge in edges for answer in edge.answers)),
            await asyncio.to_thread(databases.rows, self.dataset),
            [line for device in self.devices.values() for line in device.lines],
            {photo.read_bytes(): photo.parent.name for photo in photos},
        )

    @property
    def _router(self) -> str:
        return f"http://127.0.0.1:{self.lab.ports.router}"

    def _edge_database(self, node: str) -> Path:
        return self.at(node) / "edge/edge.db"

    def gateway_config(self) -> GatewayConfig:
        """Return the configuration of the gateway, with a small queue that fills up soon."""
        return GatewayConfig(
            broker=Address(port=self.broker.port, keepalive_s=5),
            nodes=tuple(self.lab.nodes),
            listen=self.listen,
            router=self._router,
            queue_bytes=20_000,
            retry_cap_s=5.0,
        )


def name_of(node: str) -> str:
    """Return the name of a node's camera, unique so that results cannot be confused."""
    return f"camera-{node}"


@asynccontextmanager
async def fleet(lab: Lab, folder: Path) -> AsyncIterator[Fleet]:
    """Run all processes for the duration of a block; at its end they are killed and the Rules deleted."""
    configs.take_photos(folder / "photos")
    (folder / "logs").mkdir()
    broker = Broker("cloud-broker", BrokerProcess(folder / "cloud-broker"))
    made = Fleet(lab, folder, f"127.0.0.1:{free_port()}", broker)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(_end, made)
        _lay_out(made)
        await lab.prepare(NAMESPACE)
        for component in made.components:
            await component.start()
        for node in lab.nodes:
            await opened.enter_async_context(_watching(made, node))
        yield made


def _lay_out(made: Fleet) -> None:
    folder = made.folder

    def service(name: str, *words: str, config: msgspec.Struct | None = None) -> Command:
        path = () if config is None else ("--config", str(toml(config, folder / f"{name}.toml")))
        return Command(name, folder / "logs", *words, *path, variant=None, counter=EventCounter())

    made.cloud["gateway"] = service("gateway", "gateway", config=made.gateway_config())
    collector = configs.collector(made.broker.port, folder)
    made.cloud["collector"] = service("collector", "cloud", "collect", config=collector)
    for node, there in made.lab.nodes.items():
        at, serving = made.at(node), free_port()
        place("straight", at / "models/pets", 1)
        made.servers[node] = service(
            f"{node}-modelserver", "modelserver", "--model_name=pets", f"--model_base_path={at}/models/pets",
            f"--port={serving}",
        )  # fmt: skip
        edge = configs.edge(there.port, serving, at, node)
        made.edges[node] = service(
            f"{node}-edge", "edge", config=msgspec.structs.replace(edge, uplink="eventbus")
        )
        camera = configs.device(name_of(node), there.port, at, INTERVAL_S, node)
        photos = f"folder:{folder / 'photos'}?loop=1&shuffle={node[-1]}"
        camera = msgspec.structs.replace(camera, camera=photos, state_dir=str(at / "camera"))
        made.devices[node] = service(f"{node}-camera", "device", "--json", config=camera)


@asynccontextmanager
async def _watching(made: Fleet, node: str) -> AsyncIterator[None]:
    """Subscribe at a node's broker for the duration of a block."""
    bus = Bus(Address(port=made.lab.nodes[node].port), transient_client_id("fleet"))
    seen = made.seen[node] = Seen()
    receipts = bus.subscribe(RECEIPT, queue=4096, node=node)
    results = bus.subscribe(RESULT, queue=4096, node=node)
    statuses = bus.subscribe(STATUS, queue=4096, node=node, name="edge")
    async with running(bus), asyncio.TaskGroup() as tasks:
        following = [
            tasks.create_task(_count_deliveries(receipts, seen.receipts)),
            tasks.create_task(_note_versions(results, seen.versions)),
            tasks.create_task(_count(statuses, seen.counters)),
        ]
        try:
            yield
        finally:
            for task in following:
                task.cancel()


async def _count_deliveries(receipts: Subscription[Receipt], counter: EventCounter) -> None:
    async for delivery in receipts:
        delivery.ack()
        counter.add()


async def _note_versions(results: Subscription[Result], versions: set[int]) -> None:
    async for delivery in results:
        delivery.ack()
        if (version := delivery.message().model_version) is not None:
            versions.add(version)


async def _count(statuses: Subscription[Status], counters: dict[str, dict[str, int]]) -> None:
    async for delivery in statuses:
        delivery.ack()
        try:
            status = delivery.message()
        except CodecError:
            continue
        counters[status.run_id] = status.counters


async def _end(made: Fleet) -> None:
    for component in reversed(made.components):
        await component.kill()
    rules = objects.rules_path(NAMESPACE)
    for thing in ((await made.lab.api.read(rules)) or {"items": []})["items"]:
        await made.lab.api.delete(f"{rules}/{thing['metadata']['name']}")
