"""The two hops of a node, each with a rule of its own: samples go up, receipts come down."""

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
    """A node with its two rules.

    Args:
        lab: The laboratory that it is in.
        node: Its name.
        bus: A client of its broker.
        receipts: What arrives there from above.
        target: Where its samples are posted to.
    """

    lab: Lab
    node: str
    bus: Bus
    receipts: asyncio.Queue[RawMessage]
    target: Target

    @property
    def samples(self) -> str:
        """The topic that goes up to the target's `/sample`."""
        return SAMPLE.name(node=self.node)

    async def posted(self, message: bytes) -> str:
        """Wait until a message is at the target, and return the path that it was posted to."""
        async with asyncio.timeout(_WITHIN_S):
            while (got := await self.target.got.get()).body != message:
                pass
            return got.path

    async def go_up(self, topic: str = "") -> None:
        """Publish until something of it arrives: what is published while the link is down is lost."""
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
        """Post until something of it arrives; return what arrived before."""
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
    """Connect a node in this way, which may take a restart of its edgecore, and make its rules."""
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
    """Return the rule for a topic of ours, named after its node and the end of its URL."""
    return objects.uplink_rule(f"{url.rsplit('/', 1)[-1]}-{node}", node=node, topic=_inside(topic), url=url)


@asynccontextmanager
async def rule(lab: Lab, thing: Thing) -> AsyncIterator[None]:
    """Have a rule in our namespace for the length of a block."""
    await lab.prepare(NAMESPACE)
    rules = objects.rules_path(NAMESPACE)
    await lab.api.create(rules, thing)
    try:
        yield
    finally:
        await lab.api.delete(f"{rules}/{thing['metadata']['name']}")


def _inside(topic: str) -> str:
    """Return what is left of a topic without the namespace that the Router puts before it."""
    return topic.removeprefix(f"{NAMESPACE}/")


def _fresh() -> bytes:
    return json.dumps({"at": time.monotonic_ns()}).encode()
