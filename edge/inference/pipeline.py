"""The edge handler: photos in, results out, samples into the outbox.

    receive → recall → queue → classify → record → publish

Natural batching: photos that arrive during a Predict call form the next batch.
"""

import asyncio

from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.subscription import Subscription
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import OUTBOX_FULL, HashedPhoto, Sampler
from edge.inference import result_log, results
from edge.inference.classifier import Classified, Classifier, ClassNames, Temperature
from edge.inference.deferrals import Deferrals
from edge.inference.fair_queue import Bounds, FairQueue, InFlightPhoto
from edge.inference.responder import Outcome, Responder
from edge.inference.result_log import PhotoKey
from edge.inference.shadow import Shadow
from edge.inference.validation import PhotoLimits, Rejected, expired, is_expired, validate
from edge.serving.client import Predictor
from edge.serving.prediction import Prediction
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError
from schemas.messages import Photo, Result
from schemas.topics import PHOTO

_GROUP = "handlers"
_EXPIRY_INTERVAL_S = 1.0


class Pipeline:
    """Answer the photos of one edge node.

    Args:
        config: Limits and names.
        bus: Connected by its own `run`.
        predictor: The model server.
        database: With the tables of `edge.inference.result_log`, `edge.harvest.history` and the outbox.
        outbox: For samples.
        sampler: Selects photos and makes samples of them.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
        temperature: That divides the logits in a model version, None if unknown.
        router: Chooses the version, and counts calls and failures.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        *,
        predictor: Predictor,
        database: Database,
        outbox: Outbox,
        sampler: Sampler,
        class_names: ClassNames,
        temperature: Temperature,
        router: TrafficRouter,
    ) -> None:
        self._config = config
        self._database = database
        self._sampler = sampler
        self._limits = PhotoLimits(config.max_photo_bytes, config.max_pixels)
        self._counters: Counters = bus.counters
        self._photos: Subscription[Photo] = bus.subscribe(
            PHOTO, node=config.node, group=_GROUP if config.shares else None
        )
        self._queue = FairQueue(Bounds(config.waiting_per_device, config.waiting, config.waiting_bytes))
        self._admitted: asyncio.Queue[InFlightPhoto] = asyncio.Queue(config.waiting)
        self._deferrals = Deferrals(bus)
        self._classifier = Classifier(predictor, router, class_names, temperature, bus.counters)
        self._shadow = Shadow(
            predictor, router, class_names, bus.counters, busy=lambda: bool(self._queue.queued())
        )
        self._bus = bus
        self._responder = Responder(
            config, bus, database=database, outbox=outbox, queue=self._queue, defer=self._defer
        )

    async def run(self) -> None:
        """Answer photos until cancelled. Safe to cancel: the broker redelivers unanswered photos."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(), name="edge.receive")
            tasks.create_task(self._recall(), name="edge.recall")
            for number in range(self._config.calls):
                tasks.create_task(self._classify(), name=f"edge.classify-{number}")
            tasks.create_task(self._expire(), name="edge.expire")
            tasks.create_task(self._responder.run(), name="edge.responder")
            tasks.create_task(self._deferrals.run(), name="edge.defer")
            tasks.create_task(self._shadow.run(), name="edge.shadow")

    async def _receive(self) -> None:
        # Nothing in this loop may await but the next delivery: one device's photo would hold up all others.
        async for delivery in self._photos:
            self._counters.add("photo.received")
            validated = validate(delivery.payload, delivery.names, self._limits, now_ms())
            photo = validated.photo if isinstance(validated, Rejected) else validated
            entry = InFlightPhoto(photo, delivery.ack, delivery.arrived_at)
            if self._queue.is_redelivery(entry):
                self._counters.add("photo.redelivered")
                continue
            self._admit(entry)
            if entry not in self._queue:  # it was shed itself
                continue
            if isinstance(validated, Rejected):
                self._reject(entry, validated)
            else:
                self._admitted.put_nowait(entry)  # as large as the bound of photos in flight: never full

    def _admit(self, entry: InFlightPhoto) -> None:
        """Admit a photo. Shed photos are deferred; the sender's outbox sends them again."""
        for shed, reason in self._queue.admit(entry):
            self._counters.add("photo.shed")
            self._deferrals.defer(shed, reason)
            shed.ack()  # unacknowledged, it would use up the broker's window for this edge

    async def _expire(self) -> None:
        """Reject photos that expire while they are queued."""
        while True:
            await asyncio.sleep(_EXPIRY_INTERVAL_S)
            for entry in self._queue.dequeue_expired(now_ms()):
                self._reject(entry, expired(entry.photo))

    def _reject(self, entry: InFlightPhoto, rejected: Rejected) -> None:
        self._counters.add(f"photo.rejected_{rejected.code}")
        self._responder.put(Outcome(entry, results.rejected(rejected, entry.arrived_at)))

    async def _recall(self) -> None:
        """Answer photos with a recorded result from the log, without the model server; queue the others."""
        while True:
            entries = [await self._admitted.get()]
            while not self._admitted.empty():
                entries.append(self._admitted.get_nowait())
            recorded = await self._recorded(entries)  # one job of the database thread for all
            for entry in entries:
                if entry.key in recorded:
                    self._counters.add("photo.answered_before")
                    self._responder.put(Outcome(entry, recorded[entry.key]))
                else:
                    self._queue.enqueue(entry)

    async def _recorded(self, entries: list[InFlightPhoto]) -> dict[PhotoKey, Result]:
        keys = [entry.key for entry in entries]
        return await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: result_log.find(connection, keys)),
            lambda error: self._defer(entries, error),
        )

    async def _classify(self) -> None:
        while True:
            batch = await self._queue.next_batch(self._config.max_batch, self._config.batch_per_device)
            # In parallel, so that devices of one version do not wait for a slow call to the other one.
            async with asyncio.TaskGroup() as tasks:
                for part in self._classifier.split_by_version(batch):
                    tasks.create_task(self._process_part(part), name="edge.answer")

    async def _process_part(self, part: list[InFlightPhoto]) -> None:
        await self._answer(part)
        self._queue.batch_done(part)

    async def _answer(self, batch: list[InFlightPhoto]) -> None:
        """Classify a batch, however long the model server takes to come back, and harvest from it."""
        pending = list(batch)

        async def attempt() -> list[Classified]:
            now = now_ms()  # photos may have expired since the failed attempt before
            for entry in [entry for entry in pending if is_expired(entry.photo, now)]:
                pending.remove(entry)
                self._reject(entry, expired(entry.photo))
            return await self._classifier.classify(pending) if pending else []

        async with asyncio.TaskGroup() as tasks:
            # Hashing runs in threads while the model server is busy with the batch.
            hashes = {
                entry.key: tasks.create_task(self._sampler.hash_photo(entry.photo.image)) for entry in batch
            }
            classified = await retry_until_ok(
                self._bus, "model", attempt, lambda error: self._defer(pending, error)
            )
            for entry, verdict in classified:
                if isinstance(verdict, Rejected):
                    self._reject(entry, verdict)
                else:
                    await self._harvest(entry, verdict, await hashes[entry.key])

    def _defer(self, batch: list[InFlightPhoto], error: TransientError) -> None:
        """Defer a batch and all queued photos, because these have to wait for the same cause."""
        for entry in (*batch, *self._queue.queued()):
            self._deferrals.defer(entry, str(error))

    async def _harvest(self, entry: InFlightPhoto, prediction: Prediction, hashed: HashedPhoto) -> None:
        sample, harvest = await self._sampler.sample(entry.photo, hashed, prediction)
        self._counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
        if harvest == OUTBOX_FULL:
            await self._bus.report_degraded(
                "samples", "no room for samples: is the cloud unreachable, or the disk full?"
            )
        elif sample is not None:
            await self._bus.report_recovered("samples")
        if sample is None:
            self._sampler.keep_for_labels(entry.photo, prediction)
        result = results.ok(entry.photo, prediction, harvest, entry.arrived_at)
        self._responder.put(Outcome(entry, result, sample))
        self._shadow.offer(entry.photo.image, prediction)
