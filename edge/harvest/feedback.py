"""Harvest photos that get a label at the node, if the edge still has them.

The label itself reaches the cloud by its own topic, with or without the photo.
"""

import asyncio
from collections import OrderedDict, deque

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest.sampler import Sampler
from edge.scheduling.fair_share import device_with_most
from schemas.errors import CodecError
from schemas.messages import Feedback

log = structlog.get_logger()

_MAX_QUEUED = 64


class LabelQueue:
    """Labels that wait, a queue per device; devices take turns.

    Bounded: when it is full, the newest label of the device with most is dropped.

    Args:
        most: Labels of all devices.
    """

    def __init__(self, most: int = _MAX_QUEUED) -> None:
        self._most = most
        self._by_device: OrderedDict[str, deque[Feedback]] = OrderedDict()
        self._filled = asyncio.Event()

    def put(self, label: Feedback) -> bool:
        """Add a label; return whether none had to be dropped for it."""
        self._by_device.setdefault(label.device, deque()).append(label)
        self._filled.set()
        if sum(map(len, self._by_device.values())) <= self._most:
            return True
        counts = {device: len(waiting) for device, waiting in self._by_device.items()}
        self._by_device[device_with_most(counts, label.device)].pop()
        return False

    async def get(self) -> Feedback:
        """Wait for a label and return it. Safe to cancel."""
        while True:
            for device, waiting in list(self._by_device.items()):
                del self._by_device[device]
                if not waiting:
                    continue
                label = waiting.popleft()
                if waiting:
                    self._by_device[device] = waiting  # behind the others
                return label
            self._filled.clear()
            await self._filled.wait()


async def harvest_labelled_photos(
    labels: Subscription[Feedback], bus: Bus, *, sampler: Sampler, database: Database, outbox: Outbox
) -> None:
    """Harvest the photo of each label, one after the other, until cancelled.

    Bounded: 64 labels are queued; beyond that, those of the device with most are dropped and counted as
    `feedback.dropped`. Safe to cancel: photos kept for labels are lost with the process, and the label is
    stored in the cloud without its photo.
    """
    queue = LabelQueue()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_receive(labels, bus, queue), name="labels.receive")
        while True:
            await _harvest(await queue.get(), bus, sampler, database, outbox)


async def _receive(labels: Subscription[Feedback], bus: Bus, queue: LabelQueue) -> None:
    async for delivery in labels:
        # Acknowledge at once: unacknowledged labels would use up the broker's in-flight window for photos.
        delivery.ack()
        try:
            label = delivery.message()
        except CodecError as error:
            log.warning("feedback.malformed", topic=delivery.names, error=str(error))
            bus.counters.add("feedback.malformed")
        else:
            if not queue.put(label):
                bus.counters.add("feedback.dropped")


async def _harvest(label: Feedback, bus: Bus, sampler: Sampler, database: Database, outbox: Outbox) -> None:
    if (found := await sampler.sample_labelled(label)) is None:
        bus.counters.add("feedback.unmatched")  # harvested before, or no longer kept
        return
    sample, harvest = found
    bus.counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
    if sample is not None:
        # The sample holds room in the outbox until it is committed, so wait for the disk, never give up.
        await retry_until_ok(bus, "disk", lambda: database.run(sample.write))
        outbox.commit(sample.item)
