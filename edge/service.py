"""Run the edge handler as one process: inference, harvest, model deployment and the uplink."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from bus import systemd
from bus.config import ConfigError
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import Delivery, Subscription
from bus.observability.exposition import Exposition
from bus.observability.measurements import (
    BrokerDrops,
    certificate_measurements,
    disk_measurements,
    outbox_measurements,
)
from bus.observability.tracing import Tracer, traces
from bus.outbox.damage import DamageLog
from bus.outbox.outbox import Outbox
from bus.outbox.overdue import report_overdue
from bus.outbox.sqlite import Database, StorageError
from edge import forgetting, large_blocks
from edge.config import EdgeConfig
from edge.forgetting import Forgetting
from edge.harvest import history
from edge.harvest.feedback import harvest_labelled_photos
from edge.harvest.sampler import Sampler
from edge.harvest.shrinking import unshrunk
from edge.harvest.shrinking.decoders import Decoders
from edge.harvest.shrinking.shrinking import Shrinking
from edge.homeassistant.announcer import Announcer
from edge.inference import attempts
from edge.inference.answers import result_log
from edge.inference.pipeline import GROUP, Pipeline
from edge.kubeedge.eventbus import eventbus_tasks, max_sample_bytes, rate_limited
from edge.misnamed import MisnamedPhotos
from edge.models.deployer import Deployer
from edge.serving.client import Predictor
from edge.serving.metadata_check import MetadataCheck
from edge.serving.traffic_router import TrafficRouter
from schemas.codec import MAX_PAYLOAD_BYTES, stored_id
from schemas.errors import CodecError
from schemas.image import ImageLimits
from schemas.messages import Policy, Receipt
from schemas.topics import FEEDBACK, HANDLERS, POLICY, RECEIPT, SAMPLE

log = structlog.get_logger()

TABLES = {
    "outbox": Outbox.MIGRATIONS,
    "answers": result_log.MIGRATIONS,
    "attempts": attempts.MIGRATIONS,
    "harvested": history.MIGRATIONS,
    "unshrunk": unshrunk.MIGRATIONS,
    "forgotten": forgetting.MIGRATIONS,
}
"""The tables of the edge's database. Their names are stored in it and decide which migrations it still needs:
never change them."""
_RECEIPTS_PER_COMMIT = 64


async def run(config: EdgeConfig, password: str | None = None) -> None:
    """Run the edge handler until cancelled. Safe to cancel: the next run continues what is unfinished.

    Raises:
        StorageError: The state folder cannot be used, for example because another edge uses it.
        ConfigError: The release key cannot be read, or an additional handler does not share.
        PermanentError: The broker refuses a subscription.
    """
    if config.name != HANDLERS[0] and not config.shares:
        raise ConfigError(
            f"handler {config.name} would answer every photo a second time",
            hint="set shares = true for all handlers of the node",
        )
    large_blocks.return_when_freed()
    bus = Bus(
        config.broker,
        f"gleaner-{config.node}-{config.name}",
        password=password,
        presence=Presence(config.node, config.name),
        durable=not config.shares,  # a broker would keep a stopped handler's share of the photos for it
        counters=Counters(),
    )
    damage = DamageLog(bus.counters)
    async with (
        traces("gleaner-edge", f"{config.node}.{config.name}") as tracer,
        Database(Path(config.state_dir) / "edge.db", TABLES, damage=damage) as database,
        Predictor(config.serving, config.model, timeout_s=config.predict_timeout_s) as predictor,
    ):
        parts = _Parts(config, bus, database, predictor, tracer)
        await parts.load()
        # A task that fails ends the process: an edge without one of its tasks would still report `online`.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bus.run(), name="edge.bus")
            tasks.create_task(damage.run(bus.report_degraded), name="edge.damage")
            tasks.create_task(systemd.report(bus.unready_reason, database.answered), name="edge.systemd")
            parts.start(tasks)


class _Parts:
    """The parts of an edge handler, put together.

    All subscriptions are made here, before the bus runs, which subscribes when it connects.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        database: Database,
        predictor: Predictor,
        tracer: Tracer | None,
    ) -> None:
        self._config = config
        self._bus = bus
        self._database = database
        self._tracer = tracer
        self._over_eventbus = config.uplink == "eventbus"
        self._outbox = Outbox(
            database,
            config.outbox,
            bus.counters,
            name="sample",
            read_id=partial(stored_id, SAMPLE),
            sparing=not self._over_eventbus,  # a bridge queues what it cannot send, and KubeEdge loses it
        )
        limits, decoders = ImageLimits.for_pixels(config.max_pixels), Decoders()
        self._shrinking = Shrinking(database, self._outbox, decoders, limits)
        self._sampler = Sampler(
            config.harvest,
            self._outbox,
            max_bytes=max_sample_bytes(config.eventbus) if self._over_eventbus else MAX_PAYLOAD_BYTES,
            recent_bytes=config.recent_bytes,
            limits=limits,
            decoders=decoders,
            shrinking=self._shrinking,
        )
        router = TrafficRouter()
        self._deployer = Deployer(config, bus, predictor, router)
        self._pipeline = Pipeline(
            config,
            bus,
            predictor=predictor,
            database=database,
            sampler=self._sampler,
            class_names=self._deployer.class_names,
            temperature=self._deployer.temperature,
            head_of=self._deployer.group_head,
            router=router,
            tracer=tracer,
        )
        self._metadata_check = MetadataCheck(
            bus,
            predictor,
            router,
            class_names=self._deployer.class_names,
            scores=config.scores,
            publish=self._deployer.publish_event,
        )
        self._misnamed = MisnamedPhotos(bus, config.node, config.name, GROUP if config.shares else None)
        self._receipts = bus.subscribe(RECEIPT, node=config.node)
        self._policies = bus.subscribe(POLICY, node=config.node)
        self._labels = bus.subscribe(FEEDBACK, node=config.node)
        self._orders = Forgetting(
            bus,
            node=config.node,
            name=config.name,
            database=database,
            outbox=self._outbox,
            sampler=self._sampler,
        )
        self._companions = _companions(config, bus, self._pipeline, self._outbox)
        announcers = (one.forget for one in self._companions if isinstance(one, Announcer))
        self._orders.in_memory += [self._pipeline.votes.forget, *announcers]

    async def load(self) -> None:
        """Load what earlier runs left on the disk; call once, before `start`."""
        await self._shrinking.load()  # before the outbox, which sends what it loads
        await self._outbox.load()
        await self._sampler.load(self._database)
        await asyncio.to_thread(self._deployer.load)
        self._pipeline.is_forgotten = await self._orders.load()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the tasks of all parts."""
        bus, outbox, counters = self._bus, self._outbox, self._bus.counters
        publish = bus.publish_bytes
        send = rate_limited(publish, self._config.eventbus) if self._over_eventbus else publish
        own = _own_policy(self._config)
        self._pipeline.set_rules(own)
        for name, task in (
            ("overdue", report_overdue(outbox, bus.report_degraded, bus.report_recovered)),
            ("pipeline", self._pipeline.run()),
            ("misnamed", self._misnamed.run()),
            ("deployer", self._deployer.run()),
            ("metadata", self._metadata_check.run()),
            ("outbox", outbox.run(send, bus.connected)),
            ("receipts", _take_receipts(self._receipts, outbox, self._sampler, counters, self._tracer)),
            ("forgetting", self._orders.run()),
            ("policies", _follow_policies(self._policies, self._sampler, self._pipeline, own, counters)),
            (
                "labels",
                harvest_labelled_photos(
                    self._labels, bus, sampler=self._sampler, database=self._database, outbox=outbox
                ),
            ),
            *((type(one).__name__.lower(), one.run()) for one in self._companions),
        ):
            tasks.create_task(task, name=f"edge.{name}")


def _own_policy(config: EdgeConfig) -> Policy:
    """Return the rules of the configuration, which hold without a policy from the cloud."""
    return Policy(
        node=config.node,
        harvest=config.harvest,
        vote=config.vote,
        votes=config.votes,
        groups=config.groups,
    )


class _Companion(Protocol):
    """A part that the configuration adds."""

    async def run(self) -> None: ...


def _companions(config: EdgeConfig, bus: Bus, pipeline: Pipeline, outbox: Outbox) -> list[_Companion]:
    """Return the parts that the configuration adds; before the bus runs, as they subscribe."""
    companions: list[_Companion] = []
    if config.uplink == "eventbus":
        companions += eventbus_tasks(config, bus)
    if config.homeassistant:
        announcer = Announcer(config, bus)
        pipeline.on_answered(announcer.answered)
        companions.append(announcer)
    if config.probes is not None:
        page = _metrics(config, bus, pipeline, outbox).page
        companions.append(HealthServer(config.probes, bus.unready_reason, page))
    return companions


def _metrics(config: EdgeConfig, bus: Bus, pipeline: Pipeline, outbox: Outbox) -> Exposition:
    return Exposition(
        "edge",
        bus,
        pipeline.measurements,
        partial(outbox_measurements, "sample", outbox, config.outbox),
        partial(disk_measurements, config.state_dir),
        partial(certificate_measurements, config.broker),
        BrokerDrops(bus).measurements,
    )


async def _take_receipts(
    receipts: Subscription[Receipt],
    outbox: Outbox,
    sampler: Sampler,
    counters: Counters,
    tracer: Tracer | None,
) -> None:
    """Remove each sample from the outbox that has a receipt."""
    while True:
        deliveries = await receipts.next_batch(_RECEIPTS_PER_COMMIT)
        # Concurrently: the database puts transactions that wait together into one commit.
        await asyncio.gather(
            *(_take_receipt(delivery, outbox, sampler, counters, tracer) for delivery in deliveries)
        )


async def _take_receipt(
    delivery: Delivery[Receipt],
    outbox: Outbox,
    sampler: Sampler,
    counters: Counters,
    tracer: Tracer | None,
) -> None:
    try:
        receipt = delivery.message()
    except CodecError as error:
        log.warning("receipt.malformed", error=str(error))
        counters.add("receipt.malformed")
    else:
        if tracer is None or receipt.trace is None:
            await _settle(receipt, outbox, sampler, counters)
        else:
            sends = outbox.send_count(receipt.photo_id)
            settling = tracer.begin("settle", SAMPLE, trace=receipt.trace, since=delivery.arrived_at)
            await _settle(receipt, outbox, sampler, counters)
            settling.end(photo_id=receipt.photo_id, node=receipt.node, status=receipt.status, sends=sends)
    delivery.ack()  # after the commit: a receipt lost in a crash would cost another sending


async def _settle(receipt: Receipt, outbox: Outbox, sampler: Sampler, counters: Counters) -> None:
    # After a second sending, `duplicate` may mean the first one, whose receipt was lost: no refund then.
    refund = receipt.status == "duplicate" and outbox.send_count(receipt.photo_id) == 1
    try:
        if not refund:
            await outbox.mark_answered(receipt.photo_id)
        elif await outbox.mark_answered(
            receipt.photo_id, lambda connection: history.refund(connection, receipt.photo_id)
        ):
            sampler.refund(receipt.photo_id)
    except StorageError as error:  # not lost: the sample is sent again and gets another receipt
        log.warning("receipt.record_failed", photo_id=receipt.photo_id, error=str(error))
    counters.add(f"receipt.{receipt.status}")
    if receipt.status == "refused":
        log.warning("sample.refused", photo_id=receipt.photo_id, reason=receipt.reason)


async def _follow_policies(
    policies: Subscription[Policy], sampler: Sampler, pipeline: Pipeline, own: Policy, counters: Counters
) -> None:
    """Apply each policy; an empty message, which clears it, brings back the rules of the configuration."""
    newest: Policy | None = None
    async for delivery in policies:
        try:
            policy = delivery.message() if delivery.payload else own
        except CodecError as error:
            counters.add("policy.malformed")
            log.warning("policy.malformed", error=str(error))
        else:
            if policy != newest:  # the broker retains it, so that it arrives again with each connection
                newest = policy
                sampler.set_rules(policy.harvest)
                pipeline.set_rules(policy)
                log.info("policy.applied" if delivery.payload else "policy.cleared")
        delivery.ack()
