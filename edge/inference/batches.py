"""Classify photos in batches; find batches with a photo that occupies or stops the model server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from edge.config import EdgeConfig
from edge.inference.classifier import Classified, Classifier
from edge.inference.marks import Marks
from edge.inference.validation import Rejected, expired
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto
from edge.serving.client import ModelUnavailableError, UnfinishedError
from edge.serving.traffic_router import SHORTEST_SLOW_S, TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

Defer = Callable[[list[InFlightPhoto], TransientError], None]


@dataclass(frozen=True, slots=True)
class Actions:
    """Actions of the pipeline on photos.

    Args:
        settle: Answers and harvests classified photos; calls the function once they are decoded.
        reject: Answers a photo that is not classified.
        defer: Sends `deferred` results for these photos.
        defer_all: As `defer`, and those of all photos that wait, because they wait for the same cause.
    """

    settle: Callable[[list[Classified], Callable[[], None]], Awaitable[None]]
    reject: Callable[[InFlightPhoto, Rejected], None]
    defer: Defer
    defer_all: Defer


class BatchLane:
    """Classify batches of different devices, one after the other.

    Args:
        config: Sizes of a batch.
        bus: Publishes the Status.
        queue: Photos in flight.
        classifier: Classifies.
        router: Knows how long calls usually take.
        marks: Of the photos that are being decoded.
        actions: Of the pipeline.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        queue: FairQueue,
        *,
        classifier: Classifier,
        router: TrafficRouter,
        marks: Marks,
        actions: Actions,
    ) -> None:
        self._config = config
        self._bus = bus
        self._queue = queue
        self._classifier = classifier
        self._router = router
        self._marks = marks
        self._actions = actions

    async def run(self) -> None:
        """Classify until cancelled. Safe to cancel: the broker redelivers unanswered photos."""
        while True:
            batch = await self._queue.next_batch(self._config.max_batch, self._config.batch_per_device)
            part, *others = self._classifier.split_by_version(batch)
            if not others:
                await self._process_part(part)
                continue
            # In parallel, so that devices of one version do not wait for a slow call to the other one.
            async with asyncio.TaskGroup() as tasks:
                for one in (part, *others):
                    tasks.create_task(self._process_part(one), name="edge.answer")

    async def _process_part(self, part: list[InFlightPhoto]) -> None:
        suspects = await self._answer(part)
        self._queue.batch_done(part, suspects)

    async def _answer(self, batch: list[InFlightPhoto]) -> list[InFlightPhoto]:
        """Classify a batch, however long the model server takes to come back, and harvest from it.

        Returns:
            Photos to try alone, because one of them occupies or stops the model server.
        """
        pending = list(batch)
        failures = 0

        async def attempt() -> list[InFlightPhoto]:
            now = now_ms()  # photos may have expired since the failed attempt before
            late = [one for one in pending if one.photo.expires_at_ms is not None and one.is_expired(now)]
            for entry in late:
                pending.remove(entry)
                self._actions.reject(entry, expired(entry.photo, now, entry.clock_offset_ms))
            if failures:
                await self._classifier.check_server()
            if not pending:
                return []
            mark = self._marks.set([entry.key for entry in pending])
            try:
                began = time.monotonic()
                classified = await self._classifier.classify(pending)
                took_s = time.monotonic() - began
                if took_s > SHORTEST_SLOW_S and took_s > self._router.slow_call_s(len(pending)):
                    for entry in batch:
                        entry.slow = True
                await self._actions.settle(classified, mark.clear)
            except ModelUnavailableError as error:
                # The server answered right before this attempt, or answers now: it is not the server.
                if error.by_input and (failures or await self._classifier.works()):
                    return self._suspect(pending, error)
                raise
            finally:
                mark.clear()
            return []

        def defer(error: TransientError) -> None:
            nonlocal failures
            failures += 1
            self._actions.defer_all(pending, error)

        return await retry_until_ok(self._bus, "model", attempt, defer)

    def _suspect(self, batch: list[InFlightPhoto], error: ModelUnavailableError) -> list[InFlightPhoto]:
        self._bus.counters.add("photo.suspected", len(batch))
        devices = sorted({entry.photo.device for entry in batch})
        log.warning("photo.suspected", photos=len(batch), devices=devices, reason=str(error))
        for entry in batch:
            entry.unfinished = error if isinstance(error, UnfinishedError) else None
        self._actions.defer(batch, error)
        return batch
