"""A stand-in for KubeEdge between an edge's broker and the gateway: EventBus, edgecore, cloudcore, Router.

It behaves as measured on the real ones: it loses, duplicates and reorders messages, replaces each byte that
is not UTF-8 by U+FFFD, drops the retain flag, takes any answer of the gateway for success, and answers 500
for an offline node.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from bus.broker.process import is_listening
from bus.config import Broker
from bus.gateway import service
from bus.gateway.config import GatewayConfig
from bus.gateway.routes import Route, node_routes
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection.connection import BrokerConnectionError
from bus.mqtt.subscription import RawMessage
from tests.conftest import eventually

NODE = "edge-1"

_MOST_BYTES = 12 * 1024 * 1024
_MOST_DELAY_S = 0.2


@dataclass
class StandInRouter:
    """Stand-in for KubeEdge between edge nodes and a gateway.

    Args:
        edges: The broker of each node.
        gateway: `HOST:PORT` of the gateway.
        loss: Share of the messages that are lost, up and down: 0 to 1.
        doubling: Share of the messages that arrive twice.
        seed: For all random numbers.
        devices: Devices whose feedback goes to the cloud.
        url: URL of its HTTP interface; set by `running`.
        away: Nodes that are offline.
        wedged: Nodes whose EventBus takes messages from the cloud and delivers none.
        refusing: Nodes for which the Router calls each message a bad request.
        deaf: Topics whose Rule was created while the node was offline: EventBus never subscribed to them.
        lose_once: Topics whose next message up is lost.
        counts: What happened how often.
    """

    edges: dict[str, Broker]
    gateway: str
    loss: float = 0.0
    doubling: float = 0.0
    seed: int = 0
    devices: Sequence[str] = ()
    url: str = ""
    away: set[str] = field(default_factory=set)
    wedged: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    lose_once: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    _brokers: dict[str, Bus] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["StandInRouter"]:
        """Run for the duration of a block, entered when all edge brokers are connected."""
        self._draw = random.Random(self.seed)
        self._running: set[asyncio.Task[None]] = set()
        application = web.Application(client_max_size=_MOST_BYTES)
        application.router.add_post("/{node}/{namespace}/{path:.*}", self._down)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as self._session:
                for node, broker in self.edges.items():
                    self._start(self._serve(node, broker))
                await eventually(lambda: len(self._brokers) == len(self.edges))
                yield self
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            await runner.cleanup()

    async def _serve(self, node: str, broker: Broker) -> None:
        """Forward the topics of one edge upwards."""
        bus = Bus(broker, transient_client_id("eventbus"))
        queues = {route: bus.subscribe_raw(route.name) for route in node_routes(node, self.devices)}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bus.run())
            await bus.connected()
            self._brokers[node] = bus
            for route, queue in queues.items():
                tasks.create_task(self._forward_up(route, queue))

    async def _forward_up(self, route: Route, queue: asyncio.Queue[RawMessage]) -> None:
        while True:
            message = await queue.get()
            if message.topic in self.deaf:
                continue
            if message.topic in self.lose_once:
                self.lose_once.remove(message.topic)
                self.counts["up lost"] += 1
                continue
            for _ in range(self._copies("up", route.node, message.payload)):
                self._start(self._up(route.path, _text(message.payload)))

    async def _up(self, path: str, payload: bytes) -> None:
        await asyncio.sleep(self._draw.uniform(0, _MOST_DELAY_S))
        with contextlib.suppress(aiohttp.ClientError):  # refused: lost
            async with self._session.post(f"http://{self.gateway}{path}", data=payload) as answer:
                body = await answer.read()
                self.counts[f"up {answer.status}"] += 1
                self.counts["leaked"] += not body

    async def _down(self, request: web.Request) -> web.Response:
        node, path = request.match_info["node"], request.match_info["path"]
        if node not in self._brokers or node in self.away:
            self.counts["down away"] += 1
            return web.Response(status=500, text=f"no session for node:{node}")
        if request.match_info["namespace"] != "gleaner" or not path.startswith("v1/"):
            return web.Response(status=404, text="Request error")
        if node in self.refusing:
            return web.Response(status=400, text="Request error")
        payload = await request.read()
        if node in self.wedged:
            self.counts["down wedged"] += 1
            return web.Response(text="message delivered")
        for _ in range(self._copies("down", node, payload)):
            self._start(self._publish(node, f"gleaner/{path}", _text(payload)))
        return web.Response(text="message delivered")

    async def _publish(self, node: str, topic: str, payload: bytes) -> None:
        with contextlib.suppress(BrokerConnectionError):  # lost
            await self._brokers[node].publish_bytes(topic, payload)

    def _copies(self, way: str, node: str, payload: bytes) -> int:
        """Return how often a message arrives, at random."""
        if not payload or node in self.away or self._draw.random() < self.loss:
            self.counts[f"{way} lost"] += 1
            return 0
        return 2 if self._draw.random() < self.doubling else 1

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _text(payload: bytes) -> bytes:
    return payload.decode(errors="replace").encode()


@asynccontextmanager
async def gateway_running(config: GatewayConfig) -> AsyncIterator[None]:
    """Run the gateway for the duration of a block, entered when it listens; fail if it ends early."""
    task = asyncio.create_task(service.run(config))
    port = int(config.listen.rpartition(":")[2])
    try:
        await eventually(lambda: task.done() or is_listening(port))
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(ended, asyncio.CancelledError | type(None)):
            raise ended
