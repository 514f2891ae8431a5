"""The two hops of a node, each with a rule of its own: samples go up, receipts come down."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from bus.config import Broker
from bus.delivery import Tapped
from bus.mqtt import Bus, passing_id
from schemas.topics import RECEIPT, SAMPLE
from tests.conftest import running
from tests.kubeedge import objects
from tests.kubeedge.lab import Lab
from tests.kubeedge.router import Target, post, target
from tests.kubeedge.settings import Link

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
    receipts: asyncio.Queue[Tapped]
    target: Target

    async def publish(self, message: bytes) -> None:
        """Publish at the node, once."""
        await self.bus.publish_bytes(SAMPLE.name(node=self.node), message)

    async def posted(self, message: bytes) -> str:
        """Wait until a message is at the target, and return the path that it was posted to."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                path, body = await self.target.got.get()
                if body == message:
                    return path

    async def go_up(self) -> None:
        """Publish until something of it arrives: what is published while the link is down is lost."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                message = _fresh()
                await self.publish(message)
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        await self.posted(message)
                except TimeoutError:
                    continue
                return

    async def go_down(self) -> None:
        """Post until something of it arrives."""
        topic = RECEIPT.name(node=self.node)
        url = self.lab.route(self.node, NAMESPACE, f"/{_inside(topic)}")
        async with asyncio.timeout(_WITHIN_S):
            while True:
                message = _fresh()
                if await post(url, message) != HTTPStatus.OK:
                    continue
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        while (got := await self.receipts.get()).payload != message:
                            pass
                except TimeoutError:
                    continue
                assert got.topic == topic
                return


@asynccontextmanager
async def hops(lab: Lab, node: str, link: Link) -> AsyncIterator[Hops]:
    """Connect a node in this way, which may take a restart of its edgecore, and make its rules."""
    await lab.connect(node, link)
    await lab.prepare(NAMESPACE)
    bus = Bus(Broker(port=lab.nodes[node].port), passing_id("test"))
    receipts = bus.tap(RECEIPT.select())
    rules = objects.rules_path(NAMESPACE)
    async with target() as there, running(bus):
        sample, receipt = _inside(SAMPLE.name(node=node)), RECEIPT.name(node=node)
        url = f"http://127.0.0.1:{there.port}/sample"
        made = (
            objects.uplink_rule(f"sample-{node}", node=node, topic=sample, url=url),
            objects.downlink_rule(f"receipt-{node}", path=f"/{_inside(receipt)}", topic=receipt),
        )
        for rule in made:
            await lab.api.create(rules, rule)
        try:
            yield Hops(lab, node, bus, receipts, there)
        finally:
            for rule in made:
                await lab.api.delete(f"{rules}/{rule['metadata']['name']}")


def _inside(topic: str) -> str:
    """Return what is left of a topic without the namespace that the Router puts before it."""
    return topic.removeprefix(f"{NAMESPACE}/")


def _fresh() -> bytes:
    return json.dumps({"at": time.monotonic_ns()}).encode()
