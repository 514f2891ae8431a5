"""The edge handler: photos in, answers out, samples on their way to the cloud.

    arrive → recall → wait → classify → settle → answer

Natural batching: while the Predict calls are out, what arrives forms the next batch.
"""

import asyncio
import time
from collections.abc import Iterable

import structlog

from bus.database import Database
from bus.delivery import Subscription
from bus.metrics import Counters
from bus.mqtt import Bus
from bus.outbox import Outbox
from bus.outlast import outlast
from bus.presence import now_ms
from edge import answers, results
from edge.arrival import Limits, Rejected, examine, expired
from edge.config import EdgeConfig
from edge.deferrals import Deferrals
from edge.sampler import OUTBOX_FULL, Sampler
from edge.settle import Outcome, Settler
from edge.shadow import ClassNames, Shadow
from edge.tfserving import BadInputError, ModelMissingError, Predictions, Predictor
from edge.trial import Trial
from edge.waiting import Bounds, Waiting, Work
from schemas.errors import TransientError
from schemas.messages import Photo, Result
from schemas.topics import PHOTO

log = structlog.get_logger()

Verdict = results.Scored | Rejected

_LOOK_FOR_EXPIRED_S = 1.0


class Classifier:
    """Answers the photos of one edge node.

    Args:
        config: Limits and names.
        bus: Connected by its own `run`.
        predictor: The model server.
        database: With the tables of `edge.answers` and of the outbox.
        outbox: Where samples go.
        sampler: Decides which photos become samples, and makes them.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
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
        trial: Trial,
    ) -> None:
        self._trial = trial
        self._config = config
        self._predictor = predictor
        self._database = database
        self._sampler = sampler
        self._class_names = class_names
        self._limits = Limits(config.max_photo_bytes, config.max_pixels)
        self._counters: Counters = bus.counters
        self._photos: Subscription[Photo] = bus.subscribe(PHOTO, node=config.node)
        self._waiting = Waiting(Bounds(config.waiting_per_device, config.waiting, config.waiting_bytes))
        self._arrived: asyncio.Queue[Work] = asyncio.Queue(config.waiting)
        self._deferrals = Deferrals(bus)
        self._shadow = Shadow(
            predictor, trial, class_names, bus.counters, busy=lambda: bool(self._waiting.everyone())
        )
        self._bus = bus
        self._settler = Settler(
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
            tasks.create_task(self._settler.run(), name="edge.settle")
            tasks.create_task(self._deferrals.run(), name="edge.defer")
            tasks.create_task(self._shadow.run(), name="edge.shadow")

    # arrive: nothing here waits, so that no photo stands in the way of another device's

    async def _arrive(self) -> None:
        async for delivery in self._photos:
            self._counters.add("photo.received")
            said = examine(delivery.payload, delivery.names, self._limits, now_ms())
            photo = said.photo if isinstance(said, Rejected) else said
            work = Work(photo, delivery.ack, delivery.arrived_at)
            if self._waiting.came_again(work):
                self._counters.add("photo.came_again")
                continue
            self._make_room(work)
            if work not in self._waiting:
                continue
            if isinstance(said, Rejected):
                self._reject(work, said)
            else:
                self._arrived.put_nowait(work)

    def _make_room(self, work: Work) -> None:
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

    def _reject(self, work: Work, rejected: Rejected) -> None:
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

    async def _recorded(self, works: list[Work]) -> dict[answers.Key, Result]:
        keys = [work.key for work in works]
        return await outlast(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: answers.find(connection, keys)),
            lambda error: self._defer(works, error),
        )

    # classify

    async def _classify(self) -> None:
        while True:
            batch = await self._waiting.take(self._config.max_batch, self._config.batch_per_device)
            async with asyncio.TaskGroup() as tasks:  # so that neither version's answers wait for the other's
                for part in self._parts(batch):
                    tasks.create_task(self._answer(part), name="edge.answer")
            self._waiting.free(batch)

    def _parts(self, batch: list[Work]) -> Iterable[list[Work]]:
        """Divide a batch by the version that is to answer."""
        parts: dict[int | None, list[Work]] = {}
        for work in batch:
            parts.setdefault(self._trial.challenger_for(work.photo.device), []).append(work)
        return parts.values()

    async def _answer(self, batch: list[Work]) -> None:
        """Classify a batch, however long the model server takes to come back, and harvest from it."""
        left = list(batch)

        async def attempt() -> list[tuple[Work, Verdict]]:
            now = now_ms()
            for work in [work for work in left if expired(work.photo, now)]:
                left.remove(work)
                self._reject(work, _expired(work))
            return await self._predict(left) if left else []

        async with asyncio.TaskGroup() as tasks:
            views = {work.key: tasks.create_task(self._sampler.view(work.photo.image)) for work in batch}
            verdicts = await outlast(self._bus, "model", attempt, lambda error: self._defer(left, error))
            for work, verdict in verdicts:
                if isinstance(verdict, Rejected):
                    self._reject(work, verdict)
                else:
                    await self._harvest(work, verdict, await views[work.key])

    def _defer(self, batch: list[Work], error: TransientError) -> None:
        for work in (*batch, *self._waiting.everyone()):
            self._deferrals.say(work, str(error))

    async def _predict(self, batch: list[Work]) -> list[tuple[Work, Verdict]]:
        """Classify a part of a batch; what the challenger fails, the champion does at once."""
        challenger = self._trial.challenger_for(batch[0].photo.device)
        if challenger is None:
            return await self._classified(batch)
        try:
            timeout_s = self._trial.patience_s(len(batch))
            return self._scored(batch, await self._call(batch, challenger, timeout_s))
        except ModelMissingError:
            self._trial.missed(challenger)
            return await self._classified(batch)
        except (TransientError, BadInputError) as error:
            verdicts = await self._classified(batch)
            if not any(isinstance(verdict, Rejected) for _, verdict in verdicts):
                log.warning("trial.failed", version=challenger, error=str(error))
                self._trial.failed(challenger)
            return verdicts

    async def _classified(self, batch: list[Work]) -> list[tuple[Work, Verdict]]:
        """Classify photos in one call; if the server refuses it, halve it until the bad photo is alone."""
        try:
            predictions = await self._in_service(batch)
        except BadInputError:
            if len(batch) == 1:
                return [await self._blame(batch[0])]
            middle = len(batch) // 2
            return [*await self._classified(batch[:middle]), *await self._classified(batch[middle:])]
        return self._scored(batch, predictions)

    async def _in_service(self, batch: list[Work]) -> Predictions:
        """Ask the version in service, which may change while it is asked."""
        while True:
            version = self._trial.pinned
            try:
                predictions = await self._call(batch, version)
            except ModelMissingError:
                if version == self._trial.pinned:
                    raise
                continue
            if predictions.version == version or predictions.version != self._trial.challenger:
                return predictions

    async def _call(
        self, batch: list[Work], version: int | None, timeout_s: float | None = None
    ) -> Predictions:
        began = time.monotonic()
        images = [work.photo.image for work in batch]
        predictions = await self._predictor.predict(images, version, timeout_s=timeout_s)
        self._trial.answered(predictions.version, len(batch), time.monotonic() - began)
        return predictions

    async def _blame(self, work: Work) -> tuple[Work, Verdict]:
        """Find out whether a refused photo is to blame, or the model: another may be served by now.

        Raises:
            TransientError: Try again later: the model is to blame, or no longer there.
        """
        good = await self._predictor.try_out(self._trial.pinned)
        try:
            predictions = await self._predictor.predict([work.photo.image], good.version)
        except BadInputError as error:
            return work, Rejected(work.photo, "corrupt-image", str(error))
        return self._scored([work], predictions)[0]

    def _scored(self, batch: list[Work], predictions: Predictions) -> list[tuple[Work, Verdict]]:
        self._counters.add("predict.calls")
        self._counters.add("predict.photos", len(batch))
        names = self._class_names(predictions.version)
        return list(zip(batch, results.scored(self._predictor.model, predictions, names), strict=True))

    async def _harvest(self, work: Work, said: results.Scored, view: int | None) -> None:
        sample, harvest = await self._sampler.sample(work.photo, view, said)
        self._counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
        if harvest == OUTBOX_FULL:
            await self._bus.degraded(
                "samples", "no room for more samples: is the cloud away, or the disk full?"
            )
        elif sample is not None:
            await self._bus.recovered("samples")
        self._settler.put(Outcome(work, results.ok(work.photo, said, harvest, work.arrived_at), sample))
        self._shadow.offer(work.photo.image, said)


def _expired(work: Work) -> Rejected:
    return Rejected(work.photo, "expired", f"not worth an answer after {work.photo.expires_at_ms}")
