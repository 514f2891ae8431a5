"""Store samples and labels from the bus in the dataset, and answer samples with receipts."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog
from msgspec import structs

from bus import systemd
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.observability import metric_catalogue as catalogue
from bus.observability.exposition import Exposition
from bus.observability.measurements import BrokerDrops, Measurement, certificate_measurements
from bus.observability.tracing import Span, Tracer, shared_step, traces
from cloud.collector.config import CollectorConfig
from cloud.collector.ingest import Origin, validate_samples
from cloud.collector.waiting_labels import WaitingLabels
from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.labels import Label
from cloud.dataset.schema import Row
from cloud.dataset.store import Store
from schemas.class_names import class_name
from schemas.errors import PermanentError, TransientError
from schemas.events import EventName
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Event, Feedback, Receipt, Sample
from schemas.topics import CLOUD, EVENT, FEEDBACK, RECEIPT, SAMPLE

log = structlog.get_logger()

T = TypeVar("T")

_GROUP = "collectors"
_FRAGMENTS = 128
_CLEAN_UP_S = 86_400.0
_REPORT_S = 1.0
_FORGOTTEN = "forgotten: 'gleaner cloud forget' took out what this camera sent until then"
LABEL_WAITS_S = 30 * 86_400.0
"""How long a label waits for its photo to arrive, in seconds; then it is removed and counted."""
DEAD_LETTER_BYTES = 256_000_000
"""Maximum payload bytes of the dead-letter table; when it is reached, the oldest quarter is deleted."""


class Collector:
    """Stores samples from the edges and labels from people.

    Args:
        config: Names and limits.
        samples_bus: Its session ends with the connection: the edge resends samples without a receipt, and
            the broker must not queue samples for an absent collector while others are connected.
        labels_bus: Its session is durable, because clients do not resend labels.
        store: The dataset.
        dead_letters: For samples that cannot be stored in the dataset.
        tracer: Begins spans; None if traces are off.
    """

    def __init__(
        self,
        config: CollectorConfig,
        samples_bus: Bus,
        labels_bus: Bus,
        store: Store,
        dead_letters: DeadLetterTable,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._tracer = tracer
        self._bus = samples_bus
        self._labels_bus = labels_bus
        self._store = store
        self._dead_letters = dead_letters
        self._bounds = Bounds(config.dead_letter_rows, DEAD_LETTER_BYTES)
        self._counters = samples_bus.counters
        tls = config.broker.tls
        self._proven = tls is not None and tls.certificate is not None
        self._compact_at = _FRAGMENTS
        self._cleaned_at = -math.inf
        self._maintenance = asyncio.Lock()
        self._in_flight = 0
        self._waiting_labels = WaitingLabels()
        self._samples: Subscription[Sample] = samples_bus.subscribe(SAMPLE, group=_GROUP)
        self._labels: Subscription[Feedback] = labels_bus.subscribe(FEEDBACK)

    async def run(self) -> None:
        """Collect until cancelled. Safe to cancel: the edge resends samples that have no receipt."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect_samples(), name="collect.samples")
            tasks.create_task(self._collect_labels(), name="collect.labels")

    async def _collect_samples(self) -> None:
        while True:
            # What arrives during a commit forms the next batch.
            deliveries = await self._samples.next_batch(self._config.batch)
            self._in_flight = len(deliveries)
            self._counters.add("sample.received", len(deliveries))
            rows, dead_letters, origins = await asyncio.to_thread(validate_samples, deliveries)
            began = time.monotonic()
            # A receipt is sent only after the commit is on the disk: the edge then deletes the sample.
            receipts = await self._store_rows(rows, origins) + await self._store_dead_letters(dead_letters)
            spans = self._spans(receipts, origins, began)
            await asyncio.gather(
                *(
                    self._send(receipt, origins.get(receipt.photo_id), span)
                    for receipt, span in zip(receipts, spans, strict=True)
                )
            )
            # Acknowledged last: after a crash the broker gives the samples to another collector, which
            # answers `duplicate`.
            for delivery in deliveries:
                delivery.ack()
            self._in_flight = 0
            await self._maintain()

    def measurements(self) -> Iterator[Measurement]:
        """Yield how many samples were received and have no receipt yet."""
        yield Measurement(catalogue.SAMPLES_WAITING, self._samples.queue.qsize() + self._in_flight)

    def _spans(
        self, receipts: list[Receipt], origins: Mapping[str, Origin], began: float
    ) -> Sequence[Span | None]:
        """Return the span of each sample written since `began`, or None for each if traces are off."""
        if self._tracer is None:
            return [None] * len(receipts)
        spans = [_begin_trace(self._tracer, one, origins.get(one.photo_id)) for one in receipts]
        shared_step(spans, "store", since=began)
        return spans

    async def _store_rows(self, rows: dict[str, Row], origins: Mapping[str, Origin]) -> list[Receipt]:
        """Store samples and return their receipts."""
        if not rows:
            return []
        harvested_ms = {key: origins[key].harvested_ms for key in rows}
        outcomes = await self._write(
            "dataset", partial(self._store.upsert, list(rows.values()), harvested_ms)
        )
        return [
            _receipt(key, rows[key].node or CLOUD, "refused", _FORGOTTEN)
            if outcome == "forgotten"
            else _receipt(key, rows[key].node or CLOUD, outcome)
            for key, outcome in outcomes.items()
        ]

    async def _store_dead_letters(self, dead_letters: list[DeadLetter]) -> list[Receipt]:
        """Store unusable samples in the dead-letter table and return their receipts."""
        if not dead_letters:
            return []
        for message in dead_letters:
            log.warning("sample.refused", node=message.node, photo_id=message.key, error=message.reason)
        put = partial(self._dead_letters.put, dead_letters, self._bounds)
        dropped = await self._write("dead-letter table", put)
        self._counters.add("sample.dead_lettered", len(dead_letters))
        self._counters.add("dead_letter.dropped", dropped)
        # Without an id the edge cannot match a receipt to its outbox.
        return [
            _receipt(message.photo_id, message.node, "refused", f"in the dead-letter table: {message.reason}")
            for message in dead_letters
            if message.photo_id is not None
        ]

    async def _send(self, receipt: Receipt, origin: Origin | None, span: Span | None) -> None:
        trace = None if origin is None else origin.trace
        if span is not None:
            publishing = span.begin("publish", RECEIPT)
            trace = publishing.traceparent
        if trace is not None:
            receipt = structs.replace(receipt, trace=trace)
        failed: Exception | None = None
        try:
            await self._bus.publish(RECEIPT, receipt, node=receipt.node)
        except UNPUBLISHED as error:
            # The edge resends the sample, which is then answered as `duplicate`.
            failed = error
            self._counters.add("receipt.publish_failed")
        else:
            self._counters.add(f"sample.{receipt.status}")
            log.info("sample.answered", photo_id=receipt.photo_id, node=receipt.node, status=receipt.status)
        if span is not None:
            publishing.end(failed)
            span.end()

    async def _collect_labels(self) -> None:
        while True:
            deliveries = await self._labels.next_batch(self._config.batch)
            labels: list[Label] = []
            for delivery in deliveries:
                try:
                    labels.append(label_of(delivery.message(), proven=self._proven))
                except PermanentError as error:
                    log.warning("feedback.refused", topic=delivery.names, error=str(error))
                    self._counters.add("feedback.refused")
            labels = await self._without_excess(labels)
            if labels:
                outcomes = await self._write("labels", partial(self._store.label, labels))
                self._waiting_labels.count(labels, outcomes)
                self._counters.add("feedback.recorded", len(labels))
                # Together: a batch would otherwise wait for as many PUBACKs, one after the other.
                await asyncio.gather(
                    *(self._publish_recorded(label, outcomes[label.photo_id]) for label in labels)
                )
            # The durable session redelivers what is not acknowledged, and a label is idempotent.
            for delivery in deliveries:
                delivery.ack()
            await self._maintain()

    async def _without_excess(self, labels: list[Label]) -> list[Label]:
        """Leave out labels for unknown photos of cameras that have too many of them."""
        if not (ids := self._waiting_labels.to_look_up(labels)):
            return labels
        known = await self._write("labels", partial(self._store.find, ids, ["photo_id"]))
        allowed = self._waiting_labels.allowed(labels, known)
        self._counters.add("feedback.excess_dropped", len(labels) - len(allowed))
        return allowed

    async def _publish_recorded(self, label: Label, outcome: str) -> None:
        facts: dict[str, str | int] = {
            "photo_id": label.photo_id,
            "label": label.label,
            "by": label.by,
            "at_ms": label.at_ms,
            "outcome": outcome,
        }
        log.info("feedback.recorded", **facts)
        event = Event(
            node=CLOUD,
            name=self._config.name,
            event=EventName.FEEDBACK_RECORDED,
            at_ms=now_ms(),
            facts=dict(facts),
        )
        # The event is for information; the label itself is stored.
        with contextlib.suppress(*UNPUBLISHED):
            await self._bus.publish(EVENT, event, node=CLOUD, name=self._config.name)

    async def _write(self, component: str, work: Callable[[], T]) -> T:
        """Run blocking work in a thread until it succeeds; report the collector as degraded until then."""
        return await retry_until_ok(
            self._bus,
            component,
            partial(asyncio.to_thread, work),
            lambda _: self._counters.add("dataset.write_failed"),
        )

    async def _maintain(self) -> None:
        """Compact fragments when there are many, and once a day remove old versions."""
        if self._maintenance.locked():  # called after batches of samples and of labels: once is enough
            return
        async with self._maintenance:
            await self._compact_and_clean_up()

    async def _compact_and_clean_up(self) -> None:
        table = self._store.table
        try:
            if await asyncio.to_thread(table.small_fragments) >= self._compact_at:
                compacted = await asyncio.to_thread(table.compact)
                # Fragments that this compaction left would be left again: count from there.
                self._compact_at = _FRAGMENTS + await asyncio.to_thread(table.small_fragments)
                log.info("dataset.compacted", **dataclasses.asdict(compacted))
            if time.monotonic() - self._cleaned_at >= _CLEAN_UP_S:
                # Before the call, so that a failing clean-up is not repeated with every batch.
                self._cleaned_at = time.monotonic()
                removed = await asyncio.to_thread(table.clean_up)
                expired = await asyncio.to_thread(self._store.expire_labels, LABEL_WAITS_S)
                self._counters.add("feedback.expired", expired)
                self._waiting_labels.reset()
                log.info("dataset.cleaned_up", versions=removed, expired_labels=expired)
        except TransientError as error:
            # No sample depends on it: try again later, less often.
            self._compact_at *= 2
            log.warning("dataset.maintenance_failed", error=str(error))


def _begin_trace(tracer: Tracer, receipt: Receipt, origin: Origin | None) -> Span:
    """Return the span of a sample, from its arrival until its receipt is sent."""
    return tracer.begin(
        "process",
        SAMPLE,
        trace=None if origin is None else origin.trace,
        since=None if origin is None else origin.arrived_at,
        photo_id=receipt.photo_id,
        node=receipt.node,
        status=receipt.status,
    )


def label_of(feedback: Feedback, *, proven: bool = False) -> Label:
    """Return feedback as a label.

    Args:
        feedback: The message.
        proven: Whether the broker allows each device to write on its own topic only. Then a label on the
            topic of a device is by the device, under any name that it gives; people use the topic of node
            `cloud`, which no device may write. Without this a sender can claim any identity.

    Raises:
        PermanentError: The label is not a class name, or a field is out of range.
    """
    by_person = feedback.node == CLOUD
    return Label(
        photo_id=feedback.photo_id,
        label=class_name(feedback.label),
        by=feedback.by,
        at_ms=now_ms() if feedback.at_ms is None else feedback.at_ms,
        dated=feedback.at_ms is not None,
        annotator="device" if proven and not by_person else "human",
        node=None if by_person else feedback.node,
        device=None if by_person else feedback.device,
    )


def _receipt(photo_id: str, node: str, status: str, reason: str | None = None) -> Receipt:
    return Receipt(
        photo_id=photo_id,
        node=node,
        status=status,  # type: ignore[arg-type]  # the store's outcomes are two of the three
        reason=reason and reason[:MAX_TEXT_CHARS],
        received_at_ms=now_ms(),
    )


async def _report_labels_bus(samples_bus: Bus, labels_bus: Bus) -> None:
    """Report the trouble of the labels' connection in the collector's Status, until cancelled."""
    while True:
        if (reason := labels_bus.unready_reason()) is not None:
            await samples_bus.report_degraded("labels", f"labels cannot arrive: {reason}")
        else:
            await samples_bus.report_recovered("labels")
        await asyncio.sleep(_REPORT_S)


async def run(config: CollectorConfig, password: str | None = None) -> None:
    """Run a collector until cancelled.

    Args:
        config: Names and limits.
        password: Of the broker's user, if it asks for one.

    Raises:
        PermanentError: The dataset has unknown columns, or the broker refuses a subscription.
        TransientError: The dataset cannot be opened now.
    """
    store = await asyncio.to_thread(Store.open, config.dataset)
    dead_letters = await asyncio.to_thread(DeadLetterTable.open, config.dataset)
    counters = Counters()
    client_id = f"gleaner-cloud-{config.name}"
    samples_bus = Bus(
        config.broker,
        client_id,
        password=password,
        presence=Presence(CLOUD, config.name, dataset=store.location),
        counters=counters,
    )
    labels_bus = Bus(config.broker, f"{client_id}-labels", password=password, durable=True, counters=counters)
    async with (
        traces("gleaner-collector", f"{CLOUD}.{config.name}") as tracer,
        asyncio.TaskGroup() as tasks,
    ):
        collector = Collector(config, samples_bus, labels_bus, store, dead_letters, tracer=tracer)
        metrics = Exposition(
            "collector",
            samples_bus,
            partial(certificate_measurements, config.broker),
            BrokerDrops(samples_bus).measurements,
            collector.measurements,
        )
        tasks.create_task(systemd.report(samples_bus.unready_reason), name="collect.systemd")
        if config.probes is not None:
            health = HealthServer(config.probes, samples_bus.unready_reason, metrics.page)
            tasks.create_task(health.run(), name="collect.probes")
        tasks.create_task(labels_bus.run(), name="collect.labels_bus")
        # samples_bus publishes `online`, which promises that the broker queues labels for this collector.
        await labels_bus.connected()
        tasks.create_task(samples_bus.run(), name="collect.bus")
        tasks.create_task(_report_labels_bus(samples_bus, labels_bus), name="collect.report")
        tasks.create_task(collector.run(), name="collect.collector")
