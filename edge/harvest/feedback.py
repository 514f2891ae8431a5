"""Harvest photos that get a label at the node, if the edge still has them.

The label itself reaches the cloud by its own topic, with or without the photo.
"""

import asyncio

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest.sampler import Sampler
from schemas.errors import CodecError
from schemas.messages import Feedback

log = structlog.get_logger()

_MAX_QUEUED = 64


async def harvest_labelled_photos(
    labels: Subscription[Feedback], bus: Bus, *, sampler: Sampler, database: Database, outbox: Outbox
) -> None:
    """Harvest the photo of each label, one after the other, until cancelled.

    Bounded: 64 labels are queued; further ones are dropped and counted as `feedback.dropped`. Safe to cancel:
    photos kept for labels are lost with the process, and the label is stored in the cloud without its photo.
    """
    queue: asyncio.Queue[Feedback] = asyncio.Queue(_MAX_QUEUED)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_receive(labels, bus, queue), name="labels.receive")
        while True:
            await _harvest(await queue.get(), bus, sampler, database, outbox)


async def _receive(labels: Subscription[Feedback], bus: Bus, queue: asyncio.Queue[Feedback]) -> None:
    async for delivery in labels:
        # Acknowledge at once: unacknowledged labels would use up the broker's in-flight window for photos.
        delivery.ack()
        try:
            queue.put_nowait(delivery.message())
        except CodecError as error:
            log.warning("feedback.malformed", topic=delivery.names, error=str(error))
            bus.counters.add("feedback.malformed")
        except asyncio.QueueFull:
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
