"""Uplink over KubeEdge's EventBus: JSON only, rate limited, without retained messages."""

import asyncio
from pathlib import Path

import structlog

from bus.files.atomic_file import write_atomic
from bus.mqtt.client import Bus
from bus.outbox.sender import Publish
from edge.config import EdgeConfig, EventBusLimits
from edge.kubeedge.device_twins import TwinPublisher
from edge.kubeedge.rate_limit import RateLimiter
from schemas.codec import decode, to_text
from schemas.errors import CodecError
from schemas.messages import Message
from schemas.topics import FORGET, HANDLERS, POLICY, RELEASE, SAMPLE, Topic

log = structlog.get_logger()

_RETAINED: tuple[Topic[Message], ...] = (POLICY, RELEASE, FORGET)


def max_sample_bytes(limits: EventBusLimits) -> int:
    """Return the size of the largest msgpack sample whose JSON fits: base64 adds a third."""
    return limits.max_bytes * 3 // 4


def rate_limited(publish: Publish, limits: EventBusLimits) -> Publish:
    """Return a `publish` for samples that writes JSON and respects the rate limit."""
    limiter = RateLimiter(limits.per_s)

    async def publish_text(topic: str, payload: bytes) -> None:
        await limiter.wait()
        await publish(topic, to_text(SAMPLE, payload))  # EventBus replaces every byte that is not UTF-8

    return publish_text


class RetainedMessage:
    """On-disk substitute for an MQTT retained message, which EventBus does not have.

    Args:
        bus: Where the message arrives; create this before its `run`.
        topic: One of `_RETAINED`.
        node: This edge.
        folder: For the file.
    """

    def __init__(self, bus: Bus, topic: Topic[Message], node: str, folder: Path) -> None:
        self._bus = bus
        self._topic = topic
        self._names = {"node": node}
        self._path = folder / f"last-{topic.kind}"
        self._received = bus.subscribe_raw(topic.name(node=node))

    async def run(self) -> None:
        """Inject the stored message, then store each valid one that arrives, until cancelled.

        Safe to cancel: the file has the old or the new content.
        """
        if stored := self._stored():
            self._bus.inject(self._topic.name(**self._names), stored)
        while True:
            payload = (await self._received.get()).payload
            if payload == stored:
                continue  # the gateway repeats it, because EventBus may lose it
            try:
                await self._store(payload)
                stored = payload
            except (CodecError, OSError) as error:  # subscribers of the topic report a malformed one as well
                log.warning("retained.store_failed", topic=self._topic.kind, error=str(error))

    def _stored(self) -> bytes:
        """Return the stored message; empty if there is none, or the disk does not give it."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:  # the gateway sends it again
            log.warning("retained.read_failed", topic=self._topic.kind, error=str(error))
            return b""

    async def _store(self, payload: bytes) -> None:
        """Write a valid message to the file; an empty one clears it, as it clears a retained message."""
        if not payload:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)
            return
        decode(self._topic, payload, self._names)  # the file must never hold what a restart cannot use
        await asyncio.to_thread(write_atomic, self._path, payload)


def eventbus_tasks(config: EdgeConfig, bus: Bus) -> list[RetainedMessage | TwinPublisher]:
    """Return what an edge on EventBus runs in addition to its handler; call before the bus runs."""
    folder = Path(config.state_dir)
    retained = [RetainedMessage(bus, topic, config.node, folder) for topic in _RETAINED]
    if config.name != HANDLERS[0]:  # the twins are the node's, not the handler's
        return [*retained]
    return [*retained, TwinPublisher(bus, config.node)]
