"""Labels that are given at the node: a photo that was not harvested becomes a sample after all.

The label itself goes on to the cloud by its own topic, from here or from wherever it was said.
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

_WAITING = 64


async def follow_labels(
    labels: Subscription[Feedback], bus: Bus, *, sampler: Sampler, database: Database, outbox: Outbox
) -> None:
    """Harvest the photos that labels name, one after the other, until cancelled.

    Labels are taken off the broker as they come, so that no photo waits behind them; too many at once are
    dropped and counted. Safe to cancel: what has no place on the disk yet is forgotten with all photos of
    this run, and the label is in the cloud without its photo.
    """
    waiting: asyncio.Queue[Feedback] = asyncio.Queue(_WAITING)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_receive(labels, bus, waiting), name="labels.receive")
        while True:
            await _harvest(await waiting.get(), bus, sampler, database, outbox)


async def _receive(labels: Subscription[Feedback], bus: Bus, waiting: asyncio.Queue[Feedback]) -> None:
    async for delivery in labels:
        delivery.ack()
        try:
            waiting.put_nowait(delivery.message())
        except CodecError as error:
            log.warning("feedback.malformed", topic=delivery.names, error=str(error))
            bus.counters.add("feedback.malformed")
        except asyncio.QueueFull:
            bus.counters.add("feedback.dropped")


async def _harvest(label: Feedback, bus: Bus, sampler: Sampler, database: Database, outbox: Outbox) -> None:
    if (found := await sampler.labelled(label)) is None:
        bus.counters.add("feedback.unmatched")  # harvested before, or too long ago
        return
    taken, harvest = found
    bus.counters.add(f"harvest.{harvest}" if taken else f"harvest.refused_{harvest}")
    if taken is not None:
        await retry_until_ok(bus, "disk", lambda: database.run(taken.write))
        outbox.commit(taken.item)
