"""From the cloud's broker to the edge nodes: receipts, commands, policy and release.

At most one message of a kind is under way to a node, because the Router keeps no order among several; one
after the other it takes about 90 a second. While a node is away it answers with an error after two seconds
and keeps nothing, so the messages wait here: policy and release until the node is back, receipts and commands
for as long as they are of use. A receipt that gets lost is asked for again by its sample.
"""

import asyncio
import itertools
import math
import time

import structlog

from bus.backoff import backoff
from bus.gateway.config import GatewayConfig
from bus.gateway.mailbox import Mailbox, PendingMessage
from bus.gateway.router_client import Router, RouterError, RouterRefusedError
from bus.gateway.routes import DOWN, LASTING
from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from schemas.codec import encode, to_text
from schemas.errors import CodecError
from schemas.messages import Message, Receipt
from schemas.topics import COMMAND, RECEIPT, Topic

log = structlog.get_logger()

_COMMANDS_KEPT = 64


class Downlink:
    """Takes what is for the edge nodes from the cloud's broker to the Router.

    Args:
        config: Nodes and bounds.
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        router: Entered.
    """

    def __init__(self, config: GatewayConfig, bus: Bus, router: Router) -> None:
        self._config = config
        self._router = router
        self._counters = bus.counters
        self._kept = {RECEIPT: config.receipts_kept, COMMAND: _COMMANDS_KEPT}
        self._expires_s = {RECEIPT: config.receipt_expires_s, COMMAND: config.command_expires_s}
        self._subscriptions = [bus.subscribe(topic, queue=4096) for topic in DOWN]
        self._desks = {(node, topic): self._desk(topic) for node in config.nodes for topic in DOWN}

    async def run(self) -> None:
        """Pass on until cancelled. Safe to cancel: the broker retains what lasts, and the edges ask again."""
        async with asyncio.TaskGroup() as tasks:
            for subscription in self._subscriptions:
                tasks.create_task(self._sort(subscription), name=f"down.{subscription.topic.kind}")
            for (node, topic), desk in self._desks.items():
                tasks.create_task(self._send(node, topic, desk), name=f"down.{topic.kind}.{node}")
            tasks.create_task(self._repeat(), name="down.repeat")

    def returned(self, node: str) -> None:
        """Send policy and release again, and whatever waits at once: the node is back."""
        for topic in DOWN:
            desk = self._desks[node, topic]
            if topic in LASTING:
                desk.again()
            desk.hurry()

    def answer(self, receipt: Receipt) -> None:
        """Send a receipt of the gateway's own."""
        self._put(RECEIPT, receipt.node, RECEIPT.name(node=receipt.node), encode(RECEIPT, receipt))

    async def _sort(self, subscription: Subscription[Message]) -> None:
        """Put each message on the desk of its node; those of other gateways' nodes are passed over."""
        topic = subscription.topic
        async for delivery in subscription:
            delivery.ack()
            if (node := delivery.names["node"]) not in self._config.nodes:
                continue
            if not delivery.payload:  # somebody took back what was retained
                self._desks[node, topic].clear()
                continue
            try:
                delivery.message()
                text = to_text(topic, delivery.payload)
            except CodecError as error:
                log.warning("down.malformed", topic=topic.kind, node=node, error=str(error))
                self._counters.add(f"down.{topic.kind}.malformed")
            else:
                self._put(topic, node, topic.name(**delivery.names), text)

    async def _send(self, node: str, topic: Topic[Message], desk: Mailbox) -> None:
        """Send the letters of a desk one after the other, each until the Router takes it."""
        failed_at: float | None = None
        delays = backoff(cap_s=self._config.retry_cap_s)
        while True:
            letter = await desk.head()
            try:
                await self._router.post(node, letter.topic, letter.payload)
            except RouterError as error:
                level = log.warning if failed_at is None else log.debug
                level("down.failed", topic=letter.topic, error=str(error))
                self._counters.add(f"down.{topic.kind}.failed")
                failed_at = failed_at or time.monotonic()
                await desk.rest(next(delays))
                continue
            except RouterRefusedError as error:
                log.warning("down.refused", topic=letter.topic, error=str(error))
                self._counters.add(f"down.{topic.kind}.refused")
            else:
                self._counters.add(f"down.{topic.kind}.sent")
            desk.done(letter)
            if failed_at is not None:
                log.info(
                    "down.recovered", topic=letter.topic, outage_s=round(time.monotonic() - failed_at, 1)
                )
                failed_at, delays = None, backoff(cap_s=self._config.retry_cap_s)

    async def _repeat(self) -> None:
        """Send policy and release again, one node after the other.

        "Delivered" is no proof: for half a minute the Router says it of a session over QUIC that is dead.
        """
        for node in itertools.cycle(self._config.nodes):
            await asyncio.sleep(self._config.repeat_s / len(self._config.nodes))
            for topic in LASTING:
                self._desks[node, topic].again()

    def _put(self, topic: Topic[Message], node: str, name: str, text: bytes) -> None:
        expires_at = time.monotonic() + self._expires_s.get(topic, math.inf)
        self._desks[node, topic].put(PendingMessage(name, text, expires_at))

    def _desk(self, topic: Topic[Message]) -> Mailbox:
        return Mailbox(self._kept.get(topic, 1), lambda what: self._counters.add(f"down.{topic.kind}.{what}"))
