"""Forward receipts, commands, policies and releases from the cloud's broker to the edges, by the Router."""

import asyncio
import itertools
import math
import time

import structlog

from bus.backoff import backoff
from bus.gateway.config import GatewayConfig
from bus.gateway.mailbox import Mailbox, PendingMessage
from bus.gateway.router_client import Router, RouterError, RouterRefusedError
from bus.gateway.routes import DOWN_TOPICS, STATE_TOPICS
from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from schemas.codec import encode, to_text
from schemas.errors import CodecError
from schemas.messages import Message, Receipt
from schemas.topics import COMMAND, RECEIPT, Topic

log = structlog.get_logger()

_RECEIPTS_KEPT = 1000  # per node; a handler has at most a window of 64 unanswered samples by default
_COMMANDS_KEPT = 64
_SUBSCRIPTION_QUEUE = 4096  # shared by all nodes, also those of other gateways


class Downlink:
    """Forwards messages from the cloud's broker to the Router.

    While a node cannot be reached the Router keeps nothing, so messages wait here: policy and release until
    the node is back, receipts and commands until they expire. A lost receipt is requested again by its
    sample.

    Args:
        config: Nodes and limits.
        bus: Client of the cloud's broker; subscriptions are made here, so its `run` must start later.
        router: Entered.
    """

    def __init__(self, config: GatewayConfig, bus: Bus, router: Router) -> None:
        self._config = config
        self._router = router
        self._counters = bus.counters
        self._capacity = {RECEIPT: _RECEIPTS_KEPT, COMMAND: _COMMANDS_KEPT}
        self._expires_s = {RECEIPT: config.receipt_expires_s, COMMAND: config.command_expires_s}
        self._subscriptions = [bus.subscribe(topic, queue=_SUBSCRIPTION_QUEUE) for topic in DOWN_TOPICS]
        self._mailboxes = {
            (node, topic): self._make_mailbox(topic) for node in config.nodes for topic in DOWN_TOPICS
        }

    async def run(self) -> None:
        """Forward until cancelled. Safe to cancel: the broker retains policy and release, edges ask again."""
        async with asyncio.TaskGroup() as tasks:
            for subscription in self._subscriptions:
                tasks.create_task(self._receive(subscription), name=f"down.{subscription.topic.kind}")
            # One task per mailbox, so one message in flight: the Router does not keep the order of several.
            # It takes about 90 messages per second one after the other.
            for (node, topic), mailbox in self._mailboxes.items():
                tasks.create_task(self._send(node, topic, mailbox), name=f"down.{topic.kind}.{node}")
            tasks.create_task(self._repeat_state(), name="down.repeat")

    def node_returned(self, node: str) -> None:
        """Send policy and release to a node again, and retry at once what waits for it."""
        for topic in DOWN_TOPICS:
            mailbox = self._mailboxes[node, topic]
            if topic in STATE_TOPICS:
                mailbox.put_last_again()
            mailbox.retry_now()

    def send_receipt(self, receipt: Receipt) -> None:
        """Send a receipt that the gateway itself issues."""
        self._put(RECEIPT, receipt.node, RECEIPT.name(node=receipt.node), encode(RECEIPT, receipt))

    async def _receive(self, subscription: Subscription[Message]) -> None:
        """Put each message into the mailbox of its node; messages for other gateways' nodes are skipped."""
        topic = subscription.topic
        async for delivery in subscription:
            # At once: what is lost with this process is retained, or requested again.
            delivery.ack()
            if (node := delivery.names["node"]) not in self._config.nodes:
                continue
            if not delivery.payload:  # an empty payload deletes the retained message
                self._mailboxes[node, topic].clear()
                continue
            try:
                delivery.message()
                # KubeEdge replaces every byte that is not UTF-8, so msgpack becomes JSON.
                text = to_text(topic, delivery.payload)
            except CodecError as error:
                log.warning("down.malformed", topic=topic.kind, node=node, error=str(error))
                self._counters.add(f"down.{topic.kind}.malformed")
            else:
                self._put(topic, node, topic.name(**delivery.names), text)

    async def _send(self, node: str, topic: Topic[Message], mailbox: Mailbox) -> None:
        """Send the messages of a mailbox one after the other, each until the Router takes it."""
        failed_at: float | None = None
        delays = backoff(cap_s=self._config.retry_cap_s)
        while True:
            message = await mailbox.first()
            try:
                await self._router.post(node, message.topic, message.payload)
            except RouterError as error:
                level = log.warning if failed_at is None else log.debug
                level("down.failed", topic=message.topic, error=str(error))
                self._counters.add(f"down.{topic.kind}.failed")
                failed_at = failed_at or time.monotonic()
                await mailbox.wait_before_retry(next(delays))
                continue
            except RouterRefusedError as error:
                log.warning("down.refused", topic=message.topic, error=str(error))
                self._counters.add(f"down.{topic.kind}.refused")
            else:
                self._counters.add(f"down.{topic.kind}.sent")
            mailbox.remove(message)
            if failed_at is not None:
                log.info(
                    "down.recovered", topic=message.topic, outage_s=round(time.monotonic() - failed_at, 1)
                )
                failed_at, delays = None, backoff(cap_s=self._config.retry_cap_s)

    async def _repeat_state(self) -> None:
        """Send policy and release again at intervals, one node after the other.

        The Router reports success for half a minute although its QUIC session with a node is dead.
        """
        for node in itertools.cycle(self._config.nodes):
            await asyncio.sleep(self._config.repeat_s / len(self._config.nodes))
            for topic in STATE_TOPICS:
                self._mailboxes[node, topic].put_last_again()

    def _put(self, topic: Topic[Message], node: str, name: str, text: bytes) -> None:
        expires_at = time.monotonic() + self._expires_s.get(topic, math.inf)
        self._mailboxes[node, topic].put(PendingMessage(name, text, expires_at))

    def _make_mailbox(self, topic: Topic[Message]) -> Mailbox:
        return Mailbox(
            self._capacity.get(topic, 1), lambda event: self._counters.add(f"down.{topic.kind}.{event}")
        )
