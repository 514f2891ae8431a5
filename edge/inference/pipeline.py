"""The edge handler: photos in, results out, samples into the outbox.

    receive → recall → queue → classify → record → publish

Natural batching: photos that arrive during a Predict call form the next batch.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.observability import metric_catalogue as catalogue
from bus.observability.measurements import Measurement
from bus.observability.tracing import Tracer
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import OUTBOX_FULL, HashedPhoto, Sampler
from edge.inference import attempts
from edge.inference.alone import AloneLane
from edge.inference.answers import results
from edge.inference.answers.repetition import id_reused
from edge.inference.answers.responder import Outcome, Responder
from edge.inference.answers.votes import Votes
from edge.inference.batches import Actions, BatchLane
from edge.inference.classifier import Classified, Classifier, ClassNames, Temperature
from edge.inference.deferrals import Deferrals
from edge.inference.device_groups import DeviceGroups
from edge.inference.known_photos import KnownPhotos
from edge.inference.marks import Marks
from edge.inference.recall import Recall
from edge.inference.shadow import Shadow
from edge.inference.validation import PhotoLimits, Rejected, expired, validate
from edge.scheduling.bounds import Bounds
from edge.scheduling.clocks import DeviceClocks
from edge.scheduling.cost import decode_ms, is_cheap, is_expensive
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto
from edge.scheduling.isolation import ISOLATED_S
from edge.serving.client import Predictor
from edge.serving.prediction import HeadOf, Prediction
from edge.serving.traffic_router import TrafficRouter
from edge.serving.unfinished import MAX_UNFINISHED
from schemas.codec import is_image
from schemas.errors import TransientError
from schemas.image import ImageFacts
from schemas.messages import Photo, Policy, Result
from schemas.topics import PHOTO, SAMPLE

log = structlog.get_logger()

GROUP = "handlers"
_EXPIRY_INTERVAL_S = 1.0
_RETRY_SHED_S = 2.0
_FORGOTTEN = "forgotten"


class Pipeline:
    """Answer the photos of one edge node.

    Args:
        config: Limits and names.
        bus: Connected by its own `run`.
        predictor: The model server.
        database: With the tables of `result_log`, `edge.harvest.history` and the outbox.
        sampler: Selects photos and makes samples of them.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
        temperature: That divides the logits in a model version, None if unknown.
        head_of: Finds the head of a group of devices.
        router: Chooses the version, and counts calls and failures.
        tracer: Begins spans; None if traces are off.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        *,
        predictor: Predictor,
        database: Database,
        sampler: Sampler,
        class_names: ClassNames,
        temperature: Temperature,
        head_of: HeadOf,
        router: TrafficRouter,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._tracer = tracer
        self._database = database
        self._sampler = sampler
        self._clocks = DeviceClocks()
        self.votes = Votes()
        """Decide which answers count."""
        self.groups = DeviceGroups()
        """Find the head that answers a device's photos."""
        self.is_forgotten: Callable[[Photo, int], bool] = lambda _photo, _clock_offset_ms: False
        """Whether a photo is of a time that was forgotten: it is answered, and neither kept nor harvested."""
        self._router = router
        self._limits = PhotoLimits(config.max_photo_bytes, config.max_pixels)
        self._counters: Counters = bus.counters
        self._photos: Subscription[Photo] = bus.subscribe(
            PHOTO, node=config.node, group=GROUP if config.shares else None
        )
        bounds = Bounds(
            config.waiting_per_device, config.waiting, config.waiting_bytes, max(1, config.calls - 1)
        )
        self._queue = FairQueue(bounds)
        # Two parts for each call, because a batch is split by version; and photos alone.
        slots = 2 * config.calls + 1 + MAX_UNFINISHED
        self._marks = Marks(Path(config.state_dir) / "decoding.marks", slots)
        self._known = KnownPhotos(config.answers_kept)
        self._deferrals = Deferrals(bus)
        self._classifier = Classifier(
            predictor,
            router,
            class_names,
            temperature,
            bus.counters,
            groups=self.groups,
            head_of=head_of,
        )
        actions = Actions(
            settle=self._settle_all, reject=self._reject, defer=self._defer, defer_all=self._defer_all
        )
        self._batches = BatchLane(
            config,
            bus,
            self._queue,
            classifier=self._classifier,
            router=router,
            marks=self._marks,
            actions=actions,
        )
        self._alone = AloneLane(
            bus,
            self._queue,
            classifier=self._classifier,
            predictor=predictor,
            router=router,
            database=database,
            marks=self._marks,
            known=self._known,
            actions=actions,
        )
        self._shadow = Shadow(
            predictor,
            router,
            class_names,
            bus.counters,
            head_of=head_of,
            busy=lambda: bool(self._queue.queued()),
        )
        self._bus = bus
        self._responder = Responder(
            config,
            bus,
            database=database,
            sampler=sampler,
            queue=self._queue,
            known=self._known,
            defer=self._defer_all,
        )
        self._recall = Recall(
            bus,
            database,
            queue=self._queue,
            responder=self._responder,
            known=self._known,
            router=router,
            defer=self._defer_all,
            waiting=config.waiting,
        )

    async def run(self) -> None:
        """Answer photos until cancelled. Safe to cancel: the broker redelivers unanswered photos."""
        with self._marks:
            await self._load_attempts()
            await self._run()

    def set_rules(self, policy: Policy) -> None:
        """Take the votes and the groups of a policy."""
        self.votes.set_rules(policy)
        self.groups.set_rules(policy)

    def on_answered(self, seen: Callable[[Photo, Result], None]) -> None:
        """Call a function with each photo and its published final result; it must not block."""
        self._responder.on_answered = seen

    def measurements(self) -> Iterator[Measurement]:
        """Yield the number of photos in flight and how long answers took."""
        yield Measurement(catalogue.IN_FLIGHT, len(self._queue))
        yield Measurement(catalogue.PROCESS_DURATION, self._responder.durations)

    async def _load_attempts(self) -> None:
        """Count the photos that were marked when the last run ended, and isolate devices that failed then."""

        def load(connection: sqlite3.Connection) -> list[str]:
            attempts.suspect(connection, self._marks.left, now_ms())
            attempts.add(connection, self._marks.left_alone, now_ms())
            return attempts.devices_since(connection, now_ms() - round(ISOLATED_S * 1000))

        for device in await retry_until_ok(self._bus, "disk", lambda: self._database.run(load)):
            self._queue.isolate(device, failed=True)
        self._known.start(
            await retry_until_ok(self._bus, "disk", lambda: self._database.run(self._known.read))
        )
        self._marks.forget()
        if interrupted := len(self._marks.left) + len(self._marks.left_alone):
            self._counters.add("photo.interrupted", interrupted)
            log.warning("photo.interrupted", photos=interrupted, alone=len(self._marks.left_alone))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(), name="edge.receive")
            tasks.create_task(self._recall.run(), name="edge.recall")
            for number in range(self._config.calls):
                tasks.create_task(self._batches.run(), name=f"edge.classify-{number}")
            tasks.create_task(self._alone.run(), name="edge.alone")
            tasks.create_task(self._expire(), name="edge.expire")
            tasks.create_task(self._responder.run(), name="edge.responder")
            tasks.create_task(self._deferrals.run(), name="edge.defer")
            tasks.create_task(self._shadow.run(), name="edge.shadow")
            tasks.create_task(self._sampler.run(self._bus, self._queue.idle), name="edge.shrink")

    async def _receive(self) -> None:
        # Nothing in this loop may await but the next delivery: one device's photo would hold up all others.
        async for delivery in self._photos:
            self._counters.add("photo.received")
            now = now_ms()
            facts: list[ImageFacts] = []
            validated = validate(
                delivery.payload, delivery.names, self._limits, now, self._clocks, note_facts=facts.append
            )
            photo = validated.photo if isinstance(validated, Rejected) else validated
            entry = InFlightPhoto(photo, delivery.ack, delivery.arrived_at)
            entry.clock_offset_ms = self._clocks.offset_ms(photo, now)
            if facts:
                entry.cost_ms = decode_ms(facts[0], len(photo.image))
            entry.bare = is_image(delivery.payload)
            if (first := self._queue.find(entry)) is not None:
                self._receive_again(first, entry, validated)
                continue
            if self._tracer is not None:
                _begin_trace(self._tracer, entry)
            self._admit(entry)
            if entry not in self._queue:  # it was shed itself
                continue
            if isinstance(validated, Rejected):
                self._reject(entry, validated)
            else:
                self._recall.put(entry)

    def _receive_again(self, first: InFlightPhoto, entry: InFlightPhoto, validated: Photo | Rejected) -> None:
        """Take the redelivery of a photo in flight, or refuse another picture with its id."""
        if first.photo.image == entry.photo.image:
            self._counters.add("photo.redelivered")
            self._queue.is_redelivery(entry)
        else:
            rejected = validated if isinstance(validated, Rejected) else id_reused(entry.photo)
            self._counters.add(f"photo.rejected_{rejected.code}")
            self._responder.refuse(entry, rejected)

    def _admit(self, entry: InFlightPhoto) -> None:
        """Admit a photo. Shed photos are deferred; the sender's outbox sends them again."""
        for shed, reason in self._queue.admit(entry):
            self._counters.add("photo.shed")
            self._deferrals.defer(shed, reason, retry_after_s=_RETRY_SHED_S)
            if shed.span is not None:
                shed.span.end(status="deferred")
            shed.ack()  # unacknowledged, it would use up the broker's window for this edge

    async def _expire(self) -> None:
        """Reject photos that expire while they are queued, and report clocks that are wrong."""
        reported: dict[str, float] = {}
        while True:
            await asyncio.sleep(_EXPIRY_INTERVAL_S)
            now = now_ms()
            for entry in self._queue.dequeue_expired(now):
                self._reject(entry, expired(entry.photo, now, entry.clock_offset_ms))
            if (wrong := self._clocks.wrong()) != reported:
                reported = wrong
                self._bus.report_later(clock_offsets_s=wrong)

    def _reject(self, entry: InFlightPhoto, rejected: Rejected) -> None:
        self._counters.add(f"photo.rejected_{rejected.code}")
        self._responder.put(Outcome(entry, results.rejected(rejected, entry.arrived_at)))

    async def _settle_all(self, classified: list[Classified], decoded: Callable[[], None]) -> None:
        began = time.monotonic()
        answered = [entry for entry, verdict in classified if not isinstance(verdict, Rejected)]
        costs_ms = [entry.cost_ms for entry in answered]
        # After the classification: what occupied the model server would occupy the decoders here as well.
        hashes = await self._sampler.hash_photos(
            [(entry.photo.image, entry.photo.device) for entry in answered],
            cheap=is_cheap(costs_ms),
            expensive=is_expensive(max(costs_ms, default=0.0)),
        )
        hashed = iter(hashes)
        for entry, verdict in classified:  # in order: near-duplicates are compared with those before them
            if isinstance(verdict, Rejected):
                self._reject(entry, verdict)
            else:
                await self._harvest(entry, verdict, next(hashed), began)
        decoded()

    def _defer(self, batch: list[InFlightPhoto], error: TransientError) -> None:
        for entry in batch:
            self._deferrals.defer(entry, str(error))

    def _defer_all(self, batch: list[InFlightPhoto], error: TransientError) -> None:
        """Defer a batch and all queued photos, because these have to wait for the same cause."""
        self._defer([*batch, *self._queue.queued()], error)

    async def _harvest(
        self, entry: InFlightPhoto, prediction: Prediction, hashed: HashedPhoto, began: float
    ) -> None:
        # Damage that the file itself shows is lost in the photo's normal form, so the photo carries it.
        hashed = hashed._replace(damaged=entry.photo.damaged or hashed.damaged)
        photo = entry.photo
        if entry.span is not None:
            harvesting = entry.span.step("harvest", since=began)
            creating = harvesting.begin("create", SAMPLE)
            photo = structs.replace(photo, trace=creating.traceparent)
        forgotten = self.is_forgotten(entry.photo, entry.clock_offset_ms)
        sample, harvest = (
            (None, _FORGOTTEN) if forgotten else await self._sampler.sample(photo, hashed, prediction)
        )
        if entry.span is not None:
            if sample is not None:
                creating.end(photo_id=photo.photo_id, lane=harvest)
            harvesting.end(harvest=harvest)
        self._counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
        if harvest == OUTBOX_FULL:
            await self._bus.report_degraded(
                "samples", "no room for samples: is the cloud unreachable, or the disk full?"
            )
        elif sample is not None:
            await self._bus.report_recovered("samples")
        if sample is None and not forgotten:
            self._sampler.keep_for_labels(entry.photo, prediction)
        result = results.ok(
            entry.photo,
            prediction,
            harvest,
            entry.arrived_at,
            damaged=hashed.damaged,
            confirmed=self.votes.confirm(entry.photo, prediction.label),
        )
        self._responder.put(Outcome(entry, result, sample))
        self._shadow.offer(entry.photo.image, prediction)


def _begin_trace(tracer: Tracer, entry: InFlightPhoto) -> None:
    """Begin the span of a photo that was validated, in the trace of its sender if there is one."""
    photo = entry.photo
    entry.span = tracer.begin(
        "process",
        PHOTO,
        trace=photo.trace,
        since=entry.arrived_at,
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
    )
    entry.span.step("validate", since=entry.arrived_at).end()
    entry.photo = structs.replace(photo, trace=entry.span.traceparent)
