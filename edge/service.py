"""The edge node as one process: handler, harvest and models, put together."""

import asyncio
from pathlib import Path

import structlog

from bus.config import ConfigError
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import Delivery, Subscription
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database, StorageError
from edge.config import EdgeConfig
from edge.harvest import history
from edge.harvest.feedback import follow_labels
from edge.harvest.sampler import Sampler
from edge.inference import result_log
from edge.inference.pipeline import Pipeline
from edge.kubeedge.eventbus import eventbus_tasks, max_sample_bytes, rate_limited
from edge.models.deployer import Deployer
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.errors import CodecError
from schemas.messages import Policy, Receipt
from schemas.topics import FEEDBACK, HANDLERS, POLICY, RECEIPT

log = structlog.get_logger()

_RECEIPTS = 64


async def run(config: EdgeConfig, password: str | None = None) -> None:
    """Run the edge node until cancelled. Safe to cancel: what is unfinished is taken up by the next run.

    Raises:
        StorageError: The state folder cannot be used, for example because another edge uses it.
        ConfigError: The release key cannot be used, or a further handler does not share.
        PermanentError: The broker refuses a subscription.
    """
    if config.name != HANDLERS[0] and not config.shares:
        raise ConfigError(f"handler {config.name}", expected="shares = true, as the others", got="false")
    counters = Counters()
    bus = Bus(
        config.broker,
        f"gleaner-{config.node}-{config.name}",
        password=password,
        presence=Presence(config.node, config.name),
        durable=not config.shares,  # for one that is away, the broker would keep its part of what is shared
        counters=counters,
    )
    tables = {
        "outbox": Outbox.MIGRATIONS,
        "answers": result_log.MIGRATIONS,
        "harvested": history.MIGRATIONS,
    }
    async with (
        Database(Path(config.state_dir) / "edge.db", tables) as database,
        Predictor(config.serving, config.model, timeout_s=config.predict_timeout_s) as predictor,
    ):
        outbox = Outbox(database, config.outbox, counters, name="sample")
        await outbox.load()
        over_eventbus = config.uplink == "eventbus"
        most_bytes = max_sample_bytes(config.eventbus) if over_eventbus else MAX_PAYLOAD_BYTES
        send = rate_limited(bus.publish_bytes, config.eventbus) if over_eventbus else bus.publish_bytes
        sampler = Sampler(config.harvest, outbox, most_bytes=most_bytes, recent_bytes=config.recent_bytes)
        await sampler.load(database)
        router = TrafficRouter()
        deployer = Deployer(config, bus, predictor, router)
        await asyncio.to_thread(deployer.load)
        classifier = Pipeline(
            config,
            bus,
            predictor=predictor,
            database=database,
            outbox=outbox,
            sampler=sampler,
            class_names=deployer.class_names,
            temperature=deployer.temperature,
            trial=router,
        )
        receipts = bus.subscribe(RECEIPT, node=config.node)
        policies = bus.subscribe(POLICY, node=config.node)
        labels = bus.subscribe(FEEDBACK, node=config.node)
        beside = eventbus_tasks(config, bus) if over_eventbus else []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bus.run(), name="edge.bus")
            tasks.create_task(classifier.run(), name="edge.classifier")
            tasks.create_task(deployer.run(), name="edge.deployer")
            tasks.create_task(outbox.run(send, bus.connected), name="edge.outbox")
            tasks.create_task(_take_receipts(receipts, outbox, sampler, counters), name="edge.receipts")
            tasks.create_task(_follow_policies(policies, sampler), name="edge.policies")
            tasks.create_task(
                follow_labels(labels, bus, sampler=sampler, database=database, outbox=outbox),
                name="edge.labels",
            )
            for companion in beside:
                tasks.create_task(companion.run(), name="edge.canary")
            if config.probes is not None:
                tasks.create_task(HealthServer(config.probes, bus.unready_reason).run(), name="edge.probes")


async def _take_receipts(
    receipts: Subscription[Receipt], outbox: Outbox, sampler: Sampler, counters: Counters
) -> None:
    """Forget each sample that the cloud has answered. Receipts that come together share a commit."""
    while True:
        deliveries = await receipts.next_batch(_RECEIPTS)
        await asyncio.gather(*(_take_receipt(delivery, outbox, sampler, counters) for delivery in deliveries))


async def _take_receipt(
    delivery: Delivery[Receipt], outbox: Outbox, sampler: Sampler, counters: Counters
) -> None:
    try:
        receipt = delivery.message()
    except CodecError as error:
        log.warning("receipt.malformed", error=str(error))
        counters.add("receipt.malformed")
    else:
        await _settle(receipt, outbox, sampler, counters)
    delivery.ack()


async def _settle(receipt: Receipt, outbox: Outbox, sampler: Sampler, counters: Counters) -> None:
    # What was sent more than once may be a duplicate of itself: of the sending whose receipt got lost.
    was_there = receipt.status == "duplicate" and outbox.send_count(receipt.photo_id) == 1
    try:
        if not was_there:
            await outbox.mark_answered(receipt.photo_id)
        elif await outbox.mark_answered(
            receipt.photo_id, lambda connection: history.refund(connection, receipt.photo_id)
        ):
            sampler.refund(receipt.photo_id)
    except StorageError as error:  # the sample is sent again, and answered again
        log.warning("receipt.unsettled", photo_id=receipt.photo_id, error=str(error))
    counters.add(f"receipt.{receipt.status}")
    if receipt.status == "refused":
        log.warning("sample.refused", photo_id=receipt.photo_id, reason=receipt.reason)


async def _follow_policies(policies: Subscription[Policy], sampler: Sampler) -> None:
    newest: Policy | None = None
    async for delivery in policies:
        try:
            policy = delivery.message()
        except CodecError as error:
            log.warning("policy.malformed", error=str(error))
        else:
            if policy != newest:
                newest = policy
                sampler.follow(policy.harvest)
                log.info("policy.followed")
        delivery.ack()
