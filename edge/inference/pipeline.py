"""The edge handler: photos in, answers out, samples on their way to the cloud.

    arrive → recall → wait → classify → settle → answer

Natural batching: while the Predict calls are out, what arrives forms the next batch.
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
from edge.harvest.sampler import OUTBOX_FULL, Sampler, View
from edge.inference import result_log, results
from edge.inference.classifier import Classifier, ClassNames, Temperature, Verdict
from edge.inference.deferrals import Deferrals
from edge.inference.fair_queue import Bounds, FairQueue, InFlightPhoto
from edge.inference.responder import Outcome, Responder
from edge.inference.shadow import Shadow
from edge.inference.validation import PhotoLimits, Rejected, expired, validate
from edge.serving.client import Predictor
from edge.serving.prediction import Prediction
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError
from schemas.messages import Photo, Result
from schemas.topics import PHOTO

_GROUP = "handlers"
_LOOK_FOR_EXPIRED_S = 1.0


class Pipeline:
    """Answers the photos of one edge node.

    Args:
        config: Limits and names.
        bus: Connected by its own `run`.
        predictor: The model server.
        database: With the tables of `edge.inference.result_log`, `edge.harvest.history` and the outbox.
        outbox: Where samples go.
        sampler: Decides which photos become samples, and makes them.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
        temperature: That divides the logits in a model version, None if unknown.
        trial: Says which version answers, and counts what they do.
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
        trial: TrafficRouter,
    ) -> None:
        self._config = config
        self._database = database
        self._sampler = sampler
        self._limits = PhotoLimits(config.max_photo_bytes, config.max_pixels)
        self._counters: Counters = bus.counters
        self._photos: Subscription[Photo] = bus.subscribe(
            PHOTO, node=config.node, group=_GROUP if config.shares else None
        )
        self._waiting = FairQueue(Bounds(config.waiting_per_device, config.waiting, config.waiting_bytes))
        self._arrived: asyncio.Queue[InFlightPhoto] = asyncio.Queue(config.waiting)
        self._deferrals = Deferrals(bus)
        self._ask = Classifier(predictor, trial, class_names, temperature, bus.counters)
        self._shadow = Shadow(
            predictor, trial, class_names, bus.counters, busy=lambda: bool(self._waiting.everyone())
        )
        self._bus = bus
        self._settler = Responder(
            config, bus, database=database, outbox=outbox, waiting=self._waiting, defer=self._defer
        )

    async def run(self) -> None:
        """Answer photos until cancelled. Safe to cancel: an unanswered photo comes again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._arrive(), name="edge.arrive")
            tasks.create_task(self._recall(), name="edge.recall")
            for number in range(self._config.calls):
                tasks.create_task(self._classify(), name=f"edge.classify-{number}")
            tasks.create_task(self._expire(), name="edge.expire")
            tasks.create_task(self._settler.run(), name="edge.responder")
            tasks.create_task(self._deferrals.run(), name="edge.defer")
            tasks.create_task(self._shadow.run(), name="edge.shadow")

    # arrive: nothing here waits, so that no photo stands in the way of another device's

    async def _arrive(self) -> None:
        async for delivery in self._photos:
            self._counters.add("photo.received")
            said = validate(delivery.payload, delivery.names, self._limits, now_ms())
            photo = said.photo if isinstance(said, Rejected) else said
            work = InFlightPhoto(photo, delivery.ack, delivery.arrived_at)
            if self._waiting.is_redelivery(work):
                self._counters.add("photo.redelivered")
                continue
            self._make_room(work)
            if work not in self._waiting:
                continue
            if isinstance(said, Rejected):
                self._reject(work, said)
            else:
                self._arrived.put_nowait(work)

    def _make_room(self, work: InFlightPhoto) -> None:
        """Take a photo in hand. What has to give way is the sender's again, whose outbox still keeps it."""
        for shed, reason in self._waiting.admit(work):
            self._counters.add("photo.shed")
            self._deferrals.say(shed, reason)
            shed.ack()

    async def _expire(self) -> None:
        """Reject those whose time runs out while they wait."""
        while True:
            await asyncio.sleep(_LOOK_FOR_EXPIRED_S)
            for work in self._waiting.remove_expired(now_ms()):
                self._reject(work, _expired(work))

    def _reject(self, work: InFlightPhoto, rejected: Rejected) -> None:
        self._counters.add(f"photo.rejected_{rejected.code}")
        self._settler.put(Outcome(work, results.rejected(rejected, work.arrived_at)))

    # recall: a photo that was answered before does not wait for the model server

    async def _recall(self) -> None:
        while True:
            works = [await self._arrived.get()]
            while not self._arrived.empty():
                works.append(self._arrived.get_nowait())
            recorded = await self._recorded(works)
            for work in works:
                if work.key in recorded:
                    self._counters.add("photo.answered_before")
                    self._settler.put(Outcome(work, recorded[work.key]))
                else:
                    self._waiting.line_up(work)

    async def _recorded(self, works: list[InFlightPhoto]) -> dict[result_log.Key, Result]:
        keys = [work.key for work in works]
        return await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: result_log.find(connection, keys)),
            lambda error: self._defer(works, error),
        )

    # classify

    async def _classify(self) -> None:
        while True:
            batch = await self._waiting.take(self._config.max_batch, self._config.batch_per_device)
            async with asyncio.TaskGroup() as tasks:  # so that neither version's devices wait for the other
                for part in self._ask.parts(batch):
                    tasks.create_task(self._answer_and_free(part), name="edge.answer")

    async def _answer_and_free(self, part: list[InFlightPhoto]) -> None:
        await self._answer(part)
        self._waiting.free(part)

    async def _answer(self, batch: list[InFlightPhoto]) -> None:
        """Classify a batch, however long the model server takes to come back, and harvest from it."""
        left = list(batch)

        async def attempt() -> list[tuple[InFlightPhoto, Verdict]]:
            now = now_ms()
            for work in [work for work in left if expired(work.photo, now)]:
                left.remove(work)
                self._reject(work, _expired(work))
            return await self._ask.verdicts(left) if left else []

        async with asyncio.TaskGroup() as tasks:
            views = {work.key: tasks.create_task(self._sampler.view(work.photo.image)) for work in batch}
            verdicts = await retry_until_ok(
                self._bus, "model", attempt, lambda error: self._defer(left, error)
            )
            for work, verdict in verdicts:
                if isinstance(verdict, Rejected):
                    self._reject(work, verdict)
                else:
                    await self._harvest(work, verdict, await views[work.key])

    def _defer(self, batch: list[InFlightPhoto], error: TransientError) -> None:
        for work in (*batch, *self._waiting.everyone()):
            self._deferrals.say(work, str(error))

    async def _harvest(self, work: InFlightPhoto, said: Prediction, view: View) -> None:
        sample, harvest = await self._sampler.sample(work.photo, view, said)
        self._counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
        if harvest == OUTBOX_FULL:
            await self._bus.report_degraded(
                "samples", "no room for more samples: is the cloud away, or the disk full?"
            )
        elif sample is not None:
            await self._bus.report_recovered("samples")
        if sample is None:
            self._sampler.keep(work.photo, said)
        self._settler.put(Outcome(work, results.ok(work.photo, said, harvest, work.arrived_at), sample))
        self._shadow.offer(work.photo.image, said)


def _expired(work: InFlightPhoto) -> Rejected:
    return Rejected(work.photo, "expired", f"not worth an answer after {work.photo.expires_at_ms}")
