"""The edge handler: photos in, answers out, samples on their way to the cloud.

    arrive → wait → classify → settle → answer

Natural batching: while one Predict call is out, what arrives forms the next batch. The answer to a photo and
the decision to harvest it become durable in one transaction, before the answer is published; the broker is
acknowledged last. So whatever is killed when, a photo has one recorded answer and one sample at most.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from bus.database import Database
from bus.delivery import Delivery, Subscription
from bus.metrics import Counters
from bus.mqtt import Bus, LinkError
from bus.outbox import Item, Outbox
from bus.presence import now_ms
from bus.retry import backoff
from edge import answers, results
from edge.arrival import Limits, Rejected, examine, expired
from edge.config import EdgeConfig
from edge.sampler import Sampler
from edge.tfserving import BadInputError, ModelUnavailableError, Predictor
from edge.waiting import Waiting, Work
from schemas.errors import TransientError
from schemas.messages import Photo, Rejection, Result
from schemas.topics import PHOTO, RESULT

log = structlog.get_logger()

T = TypeVar("T")
ClassNames = Callable[[int], "tuple[str, ...] | None"]

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 5.0
_OUTCOMES = 64
# A grey PNG of 16 x 16 pixels that every image model takes.
_CONTROL_IMAGE = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000001000000010080200000090916836000000194944415478da63ac"
    "68ea6120053031900846358c6a183a1a00db8c01a69620e8710000000049454e44ae426082"
)


@dataclass(slots=True)
class Outcome:
    """A photo's final answer on its way out, with the sample if it is harvested."""

    deliveries: list[Delivery[Photo]]
    result: Result
    work: Work | None = None
    sample: Item | None = None

    @property
    def key(self) -> answers.Key:
        """Device and photo id."""
        return self.result.device, self.result.photo_id


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
    ) -> None:
        self._config = config
        self._bus = bus
        self._predictor = predictor
        self._database = database
        self._outbox = outbox
        self._sampler = sampler
        self._class_names = class_names
        self._limits = Limits(config.max_photo_bytes, config.max_pixels)
        self._counters: Counters = bus.counters
        self._photos: Subscription[Photo] = bus.subscribe(PHOTO, node=config.node)
        self._waiting = Waiting(config.waiting)
        self._in_hand: dict[answers.Key, Work] = {}
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(_OUTCOMES)

    async def run(self) -> None:
        """Answer photos until cancelled. Safe to cancel: an unanswered photo comes again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._arrive(), name="edge.arrive")
            tasks.create_task(self._classify(), name="edge.classify")
            tasks.create_task(self._settle(), name="edge.settle")

    # arrive

    async def _arrive(self) -> None:
        async for delivery in self._photos:
            self._counters.add("photo.received")
            photo = examine(delivery.payload, delivery.names, self._limits, now_ms())
            if isinstance(photo, Rejected):
                await self._outcomes.put(self._rejection(photo, [delivery], delivery.names["device"]))
            elif (work := self._in_hand.get((photo.device, photo.photo_id))) is not None:
                self._counters.add("photo.came_again")
                work.deliveries.append(delivery)
            else:
                view = asyncio.create_task(self._sampler.view(photo.image), name="edge.view")
                work = Work(photo, [delivery], delivery.arrived_at, view)
                self._in_hand[work.key] = work
                await self._waiting.put(work)

    # classify

    async def _classify(self) -> None:
        while True:
            batch = await self._waiting.take(self._config.max_batch)
            outcomes, fresh = await self._known(batch)
            if fresh:
                outcomes += await self._persist(fresh)
            for outcome in outcomes:
                await self._outcomes.put(outcome)

    async def _known(self, batch: list[Work]) -> tuple[list[Outcome], list[Work]]:
        """Part a batch into what was answered before and what is new."""
        keys = [work.key for work in batch]
        recorded = await self._retried(
            lambda: self._database.run(lambda connection: answers.find(connection, keys)), batch
        )
        known = [Outcome(work.deliveries, recorded[work.key], work) for work in batch if work.key in recorded]
        self._counters.add("photo.answered_before", len(known))
        return known, [work for work in batch if work.key not in recorded]

    async def _persist(self, batch: list[Work]) -> list[Outcome]:
        """Classify a batch, however long the model server takes to come back."""

        async def attempt() -> list[Outcome]:
            now = now_ms()
            late = [work for work in batch if expired(work.photo, now)]
            live = [work for work in batch if not expired(work.photo, now)]
            outcomes = [self._reject(work, "expired", "expired while it waited") for work in late]
            return outcomes + (await self._predict(live) if live else [])

        return await self._retried(attempt, batch)

    async def _retried(self, attempt: Callable[[], Awaitable[T]], batch: list[Work]) -> T:
        """Repeat until there is no TransientError; meanwhile tell the senders that wait."""
        failed_at: float | None = None
        for delay_s in backoff(_FIRST_RETRY_S, _LAST_RETRY_S):
            try:
                outcome = await attempt()
            except TransientError as error:
                if failed_at is None:
                    failed_at = time.monotonic()
                    log.warning("edge.deferring", photos=len(batch), error=str(error))
                    await self._bus.degraded("predict", str(error))
                await self._tell([*batch, *self._waiting.everyone()], error)
                await asyncio.sleep(delay_s)
            else:
                if failed_at is not None:
                    log.info("edge.recovered", outage_s=round(time.monotonic() - failed_at, 1))
                    await self._bus.recovered("predict")
                return outcome
        raise AssertionError("backoff yields without end")

    async def _predict(self, batch: list[Work]) -> list[Outcome]:
        """Classify a batch in one call; if the server refuses it, halve it until the bad photo is alone."""
        try:
            predictions = await self._predictor.predict([work.photo.image for work in batch])
        except BadInputError as error:
            if len(batch) == 1:
                await self._check_server(error)
                return [self._reject(batch[0], "corrupt-image", str(error))]
            middle = len(batch) // 2
            return [*await self._predict(batch[:middle]), *await self._predict(batch[middle:])]
        self._counters.add("predict.calls")
        self._counters.add("predict.photos", len(batch))
        names = self._class_names(predictions.version)
        said = results.scored(self._predictor.model, predictions, names)
        return [await self._outcome(*pair) for pair in zip(batch, said, strict=True)]

    async def _check_server(self, error: BadInputError) -> None:
        """Send an image known to be good: if that is refused too, the model is to blame and not the photo."""
        try:
            await self._predictor.predict([_CONTROL_IMAGE])
        except BadInputError:
            raise ModelUnavailableError(
                f"model {self._predictor.model}", expected="to take a known good image", got=error.got
            ) from None

    async def _outcome(self, work: Work, said: results.Scored) -> Outcome:
        sample, harvest = await self._sampler.sample(work.photo, await work.view, said)
        self._counters.add(f"harvest.{harvest}" if sample else f"harvest.refused_{harvest}")
        return Outcome(work.deliveries, results.ok(work.photo, said, harvest, work.arrived_at), work, sample)

    # settle and answer

    async def _settle(self) -> None:
        while True:
            outcomes = [await self._outcomes.get()]
            while not self._outcomes.empty():
                outcomes.append(self._outcomes.get_nowait())
            recorded = await self._record(outcomes)
            await asyncio.gather(
                *(self._answer(outcome, recorded.get(outcome.key, outcome.result)) for outcome in outcomes)
            )

    async def _record(self, outcomes: list[Outcome]) -> dict[answers.Key, Result]:
        """Make answers and samples durable; returns the answers that were there before and stand."""

        def settle(connection: sqlite3.Connection) -> dict[answers.Key, Result]:
            before = answers.find(connection, [outcome.key for outcome in outcomes])
            new = [outcome for outcome in outcomes if outcome.key not in before]
            answers.record(connection, [outcome.result for outcome in new], kept=self._config.answers_kept)
            for outcome in new:
                if outcome.sample is not None:
                    Outbox.write(connection, outcome.sample)
            return before

        works = [outcome.work for outcome in outcomes if outcome.work is not None]
        before = await self._retried(lambda: self._database.run(settle), works)
        for outcome in outcomes:
            if outcome.sample is not None:
                stored = outcome.key not in before
                (self._outbox.commit if stored else self._outbox.withdraw)(outcome.sample)
        return before

    async def _answer(self, outcome: Outcome, result: Result) -> None:
        """Publish an answer, over as many connections as it takes, then let the broker forget the photo.

        A photo left unacknowledged would hold its place among the broker's messages in flight for as long as
        the connection lives, and enough of those are silence.
        """
        while True:
            await self._bus.connected()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
                break
            except LinkError:
                self._counters.add("result.unpublished")
        for delivery in outcome.deliveries:
            delivery.ack()
        if outcome.work is not None:
            del self._in_hand[outcome.key]
        self._counters.add(f"result.{result.status}")
        log.info(
            "photo.answered",
            photo_id=result.photo_id,
            device=result.device,
            status=result.status,
            label=result.label,
            confidence=result.confidence,
            code=result.code,
            harvest=result.harvest,
            edge_ms=result.edge_ms,
        )

    async def _tell(self, works: list[Work], error: TransientError) -> None:
        """Say `deferred` once to each sender that waits; if that gets lost, the photo is still kept."""
        untold = [work for work in works if not work.told]
        for work in untold:
            work.told = True
            result = results.deferred(work.photo, str(error), work.arrived_at)
            with contextlib.suppress(LinkError):
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
        self._counters.add("result.deferred", len(untold))

    def _reject(self, work: Work, code: Rejection, reason: str) -> Outcome:
        photo = work.photo
        rejection = Rejected(photo.photo_id, code, reason)
        return self._rejection(rejection, work.deliveries, photo.device, photo.taken_at_ms, work)

    def _rejection(
        self,
        rejection: Rejected,
        deliveries: list[Delivery[Photo]],
        device: str,
        taken_at_ms: int | None = None,
        work: Work | None = None,
    ) -> Outcome:
        self._counters.add(f"photo.rejected_{rejection.code}")
        result = results.rejected(
            rejection,
            node=self._config.node,
            device=device,
            arrived_at=deliveries[0].arrived_at,
            taken_at_ms=taken_at_ms,
        )
        return Outcome(deliveries, result, work)
