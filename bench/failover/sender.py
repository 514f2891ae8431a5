"""Edges that send samples at a steady rate, each until its receipt."""

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import structs

from bench.collector import make_sample
from bench.photos import pictures
from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.subscription import Subscription
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from schemas.codec import encode, to_text
from schemas.messages import Receipt
from schemas.topics import RECEIPT, SAMPLE

DRAIN_S = 300.0
_LONGEST = 5
"""Sending takes at most this many times its duration, while nodes are still to be killed."""
_LIMITS = OutboxLimits(window=512, resend_first_s=5.0, resend_cap_s=10.0, min_free_bytes=0)
_LIMITS_BEHIND = OutboxLimits(window=256, min_free_bytes=0)
"""Of several edges behind a gateway together; its Router would drown in what is sent again too early."""


class Sender:
    """Sends the samples of some edges, which share an outbox.

    Args:
        port: Port of their broker.
        database: For the outbox.
        nodes: Names of the edges.
        as_text: Send JSON, as KubeEdge carries text only.
    """

    def __init__(self, port: int, database: Database, nodes: Sequence[str], *, as_text: bool = False) -> None:
        self.sent: list[str] = []
        self.receipts: Counter[str] = Counter()
        self.longest_silence_s = 0.0
        self._nodes = nodes
        self._as_text = as_text
        self.bus = Bus(Broker(port=port, keepalive_s=5), transient_client_id("edge"))
        self._subscriptions = [self.bus.subscribe(RECEIPT, node=node) for node in nodes]
        self._outbox = Outbox(database, _LIMITS_BEHIND if as_text else _LIMITS, Counters(), name="sample")
        self._last = time.monotonic()

    async def run(self, per_s: float, seconds: float, killed: Callable[[], bool]) -> None:
        """Send for at least this long, and until the last node was killed; then wait for the last receipts.

        Raises:
            TimeoutError: Some had no receipt after five minutes.
        """
        async with asyncio.TaskGroup() as tasks:
            owned = [
                tasks.create_task(self.bus.run()),
                tasks.create_task(self._outbox.run(self.bus.publish_bytes, self.bus.connected)),
                *(tasks.create_task(self._take_receipts(one)) for one in self._subscriptions),
            ]
            await self.bus.connected()
            await self._send(per_s, seconds, killed)
            async with asyncio.timeout(DRAIN_S):
                await self._outbox.wait_until_empty()
            for task in owned:
                task.cancel()

    async def _send(self, per_s: float, seconds: float, killed: Callable[[], bool]) -> None:
        images = itertools.cycle(pictures(64, size_px=(16, 16), grain_px=8))
        nodes = itertools.cycle(self._nodes)
        started_at = self._last = time.monotonic()
        for number in range(int(per_s * seconds * _LONGEST)):
            if number >= per_s * seconds and killed():
                return
            await asyncio.sleep(started_at + number / per_s - time.monotonic())
            photo_id, node = secrets.token_hex(16), next(nodes)
            payload = encode(SAMPLE, structs.replace(make_sample(photo_id, next(images)), node=node))
            await self._outbox.put(
                photo_id, SAMPLE.name(node=node), to_text(SAMPLE, payload) if self._as_text else payload
            )
            self.sent.append(photo_id)

    async def _take_receipts(self, subscription: Subscription[Receipt]) -> None:
        async for delivery in subscription:
            now = time.monotonic()
            self.longest_silence_s, self._last = max(self.longest_silence_s, now - self._last), now
            receipt = delivery.message()
            self.receipts[receipt.status] += 1
            await self._outbox.mark_answered(receipt.photo_id)
            delivery.ack()
