"""The collector: samples and labels from the bus into the dataset, receipts back.

A receipt goes out only after the commit has reached the disk. Natural batching: while one commit is under
way, what arrives forms the next. Several collectors share the samples; a sample that reaches two of them is
stored once, because the store decides by `photo_id`.
"""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from cloud.collector.config import CollectorConfig
from cloud.collector.ingest import sort
from cloud.dataset.labels import Label
from cloud.dataset.quarantine import Bounds, Quarantine, Refused
from cloud.dataset.schema import Row
from cloud.dataset.store import Store
from schemas.errors import PermanentError, TransientError
from schemas.messages import Event, Feedback, Receipt, Sample
from schemas.topics import CLOUD, EVENT, FEEDBACK, RECEIPT, SAMPLE

log = structlog.get_logger()

T = TypeVar("T")

_GROUP = "collectors"
_FRAGMENTS = 128
_CLEAN_UP_S = 86_400.0
_REASON_LENGTH = 1024


class Collector:
    """Stores what the edges harvest and what people say.

    Args:
        config: Names and bounds.
        samples_bus: Its session ends with the connection, so that the broker keeps no samples for it while
            others are there; the edge sends again what has no receipt.
        labels_bus: Its session is durable, because nobody repeats a label.
        store: The dataset.
        quarantine: For what cannot be stored in it.
    """

    def __init__(
        self,
        config: CollectorConfig,
        samples_bus: Bus,
        labels_bus: Bus,
        store: Store,
        quarantine: Quarantine,
    ) -> None:
        self._config = config
        self._bus = samples_bus
        self._labels_bus = labels_bus
        self._store = store
        self._quarantine = quarantine
        self._bounds = Bounds(config.quarantine_rows, config.quarantine_bytes)
        self._counters = samples_bus.counters
        self._compact_at = _FRAGMENTS
        self._cleaned_at = -math.inf
        self._samples: Subscription[Sample] = samples_bus.subscribe(SAMPLE, group=_GROUP)
        self._labels: Subscription[Feedback] = labels_bus.subscribe(FEEDBACK)

    async def run(self) -> None:
        """Collect until cancelled. Safe to cancel: what has no receipt is sent again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect_samples(), name="collect.samples")
            tasks.create_task(self._collect_labels(), name="collect.labels")

    async def _collect_samples(self) -> None:
        while True:
            deliveries = await self._samples.next_batch(self._config.batch)
            self._counters.add("sample.received", len(deliveries))
            rows, refused = await asyncio.to_thread(sort, deliveries)
            receipts = await self._store_rows(rows) + await self._set_aside(refused)
            await asyncio.gather(*(self._send(receipt) for receipt in receipts))
            for delivery in deliveries:
                delivery.ack()
            await self._tidy()

    async def _store_rows(self, rows: dict[str, Row]) -> list[Receipt]:
        """Store samples and return their receipts."""
        if not rows:
            return []
        outcomes = await self._write("dataset", partial(self._store.upsert, list(rows.values())))
        return [_receipt(key, rows[key].node or CLOUD, outcome) for key, outcome in outcomes.items()]

    async def _set_aside(self, refused: list[Refused]) -> list[Receipt]:
        """Put what cannot be used into the quarantine, and return the receipts that say so."""
        if not refused:
            return []
        for message in refused:
            log.warning("sample.refused", node=message.node, photo_id=message.key, error=message.reason)
        dropped = await self._write("quarantine", partial(self._quarantine.put, refused, self._bounds))
        self._counters.add("sample.quarantined", len(refused))
        self._counters.add("quarantine.dropped", dropped)
        return [
            _receipt(message.photo_id, message.node, "refused", f"in quarantine: {message.reason}")
            for message in refused
            if message.photo_id is not None
        ]

    async def _send(self, receipt: Receipt) -> None:
        try:
            await self._bus.publish(RECEIPT, receipt, node=receipt.node)
        except BrokerConnectionError:  # the edge sends the sample again, and it is answered as a duplicate
            self._counters.add("receipt.unpublished")
        else:
            self._counters.add(f"sample.{receipt.status}")
            log.info("sample.answered", photo_id=receipt.photo_id, node=receipt.node, status=receipt.status)

    async def _collect_labels(self) -> None:
        while True:
            deliveries = await self._labels.next_batch(self._config.batch)
            labels: list[Label] = []
            for delivery in deliveries:
                try:
                    labels.append(_label(delivery.message()))
                except PermanentError as error:
                    log.warning("feedback.refused", topic=delivery.names, error=str(error))
                    self._counters.add("feedback.refused")
            if labels:
                outcomes = await self._write("labels", partial(self._store.label, labels))
                for label in labels:
                    self._counters.add("feedback.recorded")
                    await self._tell(label, outcomes[label.photo_id])
            for delivery in deliveries:
                delivery.ack()

    async def _tell(self, label: Label, outcome: str) -> None:
        facts = {"photo_id": label.photo_id, "label": label.label, "by": label.by, "outcome": outcome}
        log.info("feedback.recorded", **facts)
        event = Event(
            node=CLOUD,
            name=self._config.name,
            event="feedback.recorded",
            at_ms=now_ms(),
            facts=dict(facts),
        )
        with contextlib.suppress(BrokerConnectionError):  # the label is stored; that is what counts
            await self._bus.publish(EVENT, event, node=CLOUD, name=self._config.name)

    async def _write(self, part: str, work: Callable[[], T]) -> T:
        """Run blocking work in a thread until the disk or object store takes it."""
        return await retry_until_ok(
            self._bus,
            part,
            partial(asyncio.to_thread, work),
            lambda _: self._counters.add("dataset.failed"),
        )

    async def _tidy(self) -> None:
        """Join small fragments when there are many, and once a day forget old versions."""
        try:
            if await asyncio.to_thread(self._store.table.fragments) >= self._compact_at:
                compacted = await asyncio.to_thread(self._store.table.compact)
                # What a compaction leaves, it would leave again.
                self._compact_at = _FRAGMENTS + await asyncio.to_thread(self._store.table.fragments)
                log.info("dataset.compacted", **dataclasses.asdict(compacted))
            if time.monotonic() - self._cleaned_at >= _CLEAN_UP_S:
                self._cleaned_at = time.monotonic()
                removed = await asyncio.to_thread(self._store.table.clean_up)
                log.info("dataset.cleaned_up", versions=removed)
        except TransientError as error:  # nothing is lost by that; try again, but not with every commit
            self._compact_at *= 2
            log.warning("dataset.not_tidied", error=str(error))


def _label(feedback: Feedback) -> Label:
    return Label(
        photo_id=feedback.photo_id,
        label=feedback.label,
        by=feedback.by,
        at_ms=now_ms() if feedback.at_ms is None else feedback.at_ms,
    )


def _receipt(photo_id: str, node: str, status: str, reason: str | None = None) -> Receipt:
    return Receipt(
        photo_id=photo_id,
        node=node,
        status=status,  # type: ignore[arg-type]  # the store's outcomes are two of the three
        reason=reason and reason[:_REASON_LENGTH],
        received_at_ms=now_ms(),
    )


async def run(config: CollectorConfig, password: str | None = None) -> None:
    """Run a collector until cancelled.

    Raises:
        PermanentError: The dataset has another layout, or the broker refuses a subscription.
    """
    store = await asyncio.to_thread(Store.open, config.dataset)
    quarantine = await asyncio.to_thread(Quarantine.open, config.dataset)
    counters = Counters()
    client_id = f"gleaner-cloud-{config.name}"
    samples_bus = Bus(
        config.broker,
        client_id,
        password=password,
        presence=Presence(CLOUD, config.name),
        counters=counters,
    )
    labels_bus = Bus(config.broker, f"{client_id}-labels", password=password, durable=True, counters=counters)
    collector = Collector(config, samples_bus, labels_bus, store, quarantine)
    async with asyncio.TaskGroup() as tasks:
        if config.probes is not None:
            tasks.create_task(
                HealthServer(config.probes, samples_bus.unready_reason).run(), name="collect.probes"
            )
        tasks.create_task(labels_bus.run(), name="collect.labels_bus")
        await labels_bus.connected()  # online means that the broker keeps labels for it, too
        tasks.create_task(samples_bus.run(), name="collect.bus")
        tasks.create_task(collector.run(), name="collect.collector")
