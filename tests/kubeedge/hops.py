"""The two directions of a node, each with its own Rule: samples up, receipts down."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.subscription import RawMessage
from schemas.topics import RECEIPT, SAMPLE
from tests.conftest import running
from tests.kubeedge import objects
from tests.kubeedge.api import Thing
from tests.kubeedge.lab import Lab
from tests.kubeedge.router import Target, post, target
from tests.kubeedge.settings import BrokerConnection

NAMESPACE = "gleaner"
_WITHIN_S = 180.0
_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Hops:
    """A node with its two Rules.

    Args:
        lab: The laboratory.
        node: Name of the node.
        bus: A client of its broker.
        receipts: Messages that arrive there from the cloud.
        target: Endpoint to which its samples are posted.
    """

    lab: Lab
    node: str
    bus: Bus
    receipts: asyncio.Queue[RawMessage]
    target: Target

    @property
    def samples(self) -> str:
        """The topic whose messages are posted to the target's `/sample`."""
        return SAMPLE.name(node=self.node)

    async def posted(self, message: bytes) -> str:
        """Wait until a message arrives at the target; return the path to which it was posted."""
        async with asyncio.timeout(_WITHIN_S):
            while (got := await self.target.got.get()).body != message:
                pass
            return got.path

    async def go_up(self, topic: str = "") -> None:
        """Publish until a message arrives; messages published while the connection is down are lost."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                message = _fresh()
                await self.bus.publish_bytes(topic or self.samples, message)
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        await self.posted(message)
                except TimeoutError:
                    continue
                return

    async def go_down(self) -> list[bytes]:
        """Post until a message arrives; return the messages that arrived before it."""
        before = []
        async with asyncio.timeout(_WITHIN_S):
            while True:
                message = _fresh()
                if await self.post(message) != HTTPStatus.OK:
                    continue
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        while (got := await self.receipts.get()).payload != message:
                            before.append(got.payload)
                except TimeoutError:
                    continue
                assert got.topic == RECEIPT.name(node=self.node)
                return before

    async def post(self, message: bytes) -> int:
        """Post to the Router for this node, once, and return the status."""
        topic = RECEIPT.name(node=self.node)
        return await post(self.lab.route(self.node, NAMESPACE, f"/{_inside(topic)}"), message)


@asynccontextmanager
async def hops(lab: Lab, node: str, link: BrokerConnection) -> AsyncIterator[Hops]:
    """Connect a node with a transport, which may restart its edgecore, and create its Rules."""
    await lab.connect(node, link)
    bus = Bus(Broker(port=lab.nodes[node].port), transient_client_id("test"))
    receipts = bus.subscribe_raw(RECEIPT.select())
    receipt = RECEIPT.name(node=node)
    down = objects.downlink_rule(f"receipt-{node}", path=f"/{_inside(receipt)}", topic=receipt)
    async with (
        running(bus),
        target() as there,
        rule(lab, uplink(node, SAMPLE.name(node=node), there.url("/sample"))),
        rule(lab, down),
    ):
        yield Hops(lab, node, bus, receipts, there)


def uplink(node: str, topic: str, url: str) -> Thing:
    """Return the Rule for a Gleaner topic, named after the node and the end of the URL."""
    return objects.uplink_rule(f"{url.rsplit('/', 1)[-1]}-{node}", node=node, topic=_inside(topic), url=url)


@asynccontextmanager
async def rule(lab: Lab, thing: Thing) -> AsyncIterator[None]:
    """Create a Rule in Gleaner's namespace for the duration of a block."""
    await lab.prepare(NAMESPACE)
    rules = objects.rules_path(NAMESPACE)
    await lab.api.create(rules, thing)
    try:
        yield
    finally:
        await lab.api.delete(f"{rules}/{thing['metadata']['name']}")


def _inside(topic: str) -> str:
    """Return a topic without the namespace, which the Router prepends."""
    return topic.removeprefix(f"{NAMESPACE}/")


def _fresh() -> bytes:
    return json.dumps({"at": time.monotonic_ns()}).encode()
