"""The way to the cloud over KubeEdge's EventBus: text alone, slowly, and nothing retained."""

import asyncio
from pathlib import Path

import structlog

from bus.atomic_file import write_atomic
from bus.mqtt.client import Bus
from bus.outbox.outbox import Publish
from edge.config import EdgeConfig, EventBusLimits
from edge.kubeedge.device_twins import TwinPublisher
from edge.kubeedge.rate_limit import RateLimiter
from schemas.codec import decode, to_text
from schemas.errors import CodecError
from schemas.messages import Message
from schemas.topics import HANDLERS, POLICY, RELEASE, SAMPLE, Topic

log = structlog.get_logger()

_RETAINED: tuple[Topic[Message], ...] = (POLICY, RELEASE)


def max_sample_bytes(limits: EventBusLimits) -> int:
    """Return how large a sample may be before it becomes JSON: base64 adds a third."""
    return limits.max_bytes * 3 // 4


def rate_limited(publish: Publish, limits: EventBusLimits) -> Publish:
    """Return a `publish` for samples that keeps the pace and writes JSON."""
    pace = RateLimiter(limits.per_s)

    async def publish_text(topic: str, payload: bytes) -> None:
        await pace.turn()
        await publish(topic, to_text(SAMPLE, payload))

    return publish_text


class RetainedMessage:
    """The last message of a topic on disk: what a broker's retained message is, where the bus retains none.

    Args:
        bus: Where it arrives; make this before its `run`.
        topic: Policy or release.
        node: This edge.
        folder: For the file.
    """

    def __init__(self, bus: Bus, topic: Topic[Message], node: str, folder: Path) -> None:
        self._bus = bus
        self._topic = topic
        self._names = {"node": node}
        self._path = folder / f"last-{topic.kind}"
        self._tapped = bus.subscribe_raw(topic.name(node=node))

    async def run(self) -> None:
        """Deliver what an earlier run kept, then keep what arrives, until cancelled.

        Safe to cancel: the file is the old one or the new one.
        """
        kept = b""
        if self._path.exists():
            kept = self._path.read_bytes()
            self._bus.inject(self._topic.name(**self._names), kept)
        while True:
            payload = (await self._tapped.get()).payload
            if payload == kept:
                continue  # the gateway says it again and again
            try:
                decode(self._topic, payload, self._names)
                await asyncio.to_thread(write_atomic, self._path, payload)
                kept = payload
            except (CodecError, OSError) as error:  # whoever uses the message says more of it
                log.warning("edge.not_kept", topic=self._topic.kind, error=str(error))


def eventbus_tasks(config: EdgeConfig, bus: Bus) -> list[RetainedMessage | TwinPublisher]:
    """Return what an edge runs beside its handler on the EventBus; make this before the bus runs.

    Of several handlers the first alone tells of the devices.
    """
    folder = Path(config.state_dir)
    kept = [RetainedMessage(bus, topic, config.node, folder) for topic in _RETAINED]
    return [*kept, TwinPublisher(bus, config.node)] if config.name == HANDLERS[0] else [*kept]
