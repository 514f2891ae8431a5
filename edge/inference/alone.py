"""Classify the photos of isolated devices one by one, each with a bounded number of attempts."""

import asyncio
import math
import random
import time
from collections.abc import Callable

import structlog

from bus.backoff import backoff
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.outbox.sqlite import Database
from edge.inference import attempts
from edge.inference.attempts import MAX_ATTEMPTS
from edge.inference.batches import Actions
from edge.inference.classifier import Classifier
from edge.inference.known_photos import KnownPhotos
from edge.inference.marks import Mark, Marks
from edge.inference.validation import Rejected, expired
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto
from edge.serving.client import ModelUnavailableError, Predictor, UnfinishedError
from edge.serving.prediction import Prediction
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

_MAX_UNFINISHED = 1
"""Slow photos being decoded from which on only the least suspected devices get a turn."""
_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 5.0
_STEP_S = 0.5
"""Between the checks whether the server works while a photo is being decoded."""
_FRESH_S = 1.0
"""How long the answer to a photo alone shows that the server works."""
_CONTROLS = (1, 8, 32)
"""Fewest known-good images before the first, second and third attempt."""


class AloneLane:
    """Try suspected photos alone, and reject one with which the server or the edge ends `MAX_ATTEMPTS` times.

    Before the second and the third attempt, many known-good images must be classified in a row. A photo that
    is still being decoded after the time for a call, counted while the server answers other calls, is
    rejected at once. No other photo of its device is tried until that work has really ended.

    Args:
        bus: Publishes the Status.
        queue: Photos in flight.
        classifier: Classifies.
        predictor: The model server.
        router: Knows how long calls usually take.
        database: With the table of `edge.inference.attempts`.
        marks: Of the photos that are being decoded.
        known: Photos in the database; those that failed alone are added.
        actions: Of the pipeline.
    """

    def __init__(
        self,
        bus: Bus,
        queue: FairQueue,
        *,
        classifier: Classifier,
        predictor: Predictor,
        router: TrafficRouter,
        database: Database,
        marks: Marks,
        known: KnownPhotos,
        actions: Actions,
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._classifier = classifier
        self._predictor = predictor
        self._router = router
        self._database = database
        self._marks = marks
        self._known = known
        self._actions = actions
        self._watched = 0
        self._answered_at = -math.inf
        self._delays = backoff(_FIRST_RETRY_S, _LAST_RETRY_S)

    async def run(self) -> None:
        """Classify until cancelled. Safe to cancel: a photo that is tried is marked on the disk."""
        async with asyncio.TaskGroup() as watching:
            while True:
                entry = await self._queue.next_alone(self._is_crowded)
                now = now_ms()
                if entry.is_expired(now):
                    rejected = expired(entry.photo, now, entry.clock_offset_ms)
                    self._actions.reject(entry, rejected)
                    self._queue.alone_done(entry.photo.device, answered=False)
                elif entry.attempts >= MAX_ATTEMPTS:
                    self._queue.isolate(entry.photo.device, failed=True)
                    reason = "each time the edge or the model server ended"
                    await self._reject(entry, reason, entry.attempts)
                    self._queue.alone_done(entry.photo.device, answered=False)
                else:
                    await self._try(entry, watching)

    def _is_crowded(self) -> bool:
        return self._watched >= _MAX_UNFINISHED

    async def _try(self, entry: InFlightPhoto, watching: asyncio.TaskGroup) -> None:
        if entry.unfinished is not None:  # it was the only photo of a batch: that call is the attempt
            error, entry.unfinished = entry.unfinished, None
            watching.create_task(self._watch(entry, error, self._begin(entry)), name="edge.unfinished")
            return
        await self._prove_server(entry)
        mark = self._begin(entry)
        began = time.monotonic()
        try:
            verdict = await self._classifier.classify_alone(entry)
        except UnfinishedError as error:
            # In its own task: other isolated devices do not wait for this one's decoder.
            watching.create_task(self._watch(entry, error, mark), name="edge.unfinished")
            return
        except ModelUnavailableError as error:
            if error.by_input:
                await self._failed(entry, error)
            else:
                await self._postpone(entry, error)
        except TransientError as error:  # the model is at fault, and another version may be right
            await self._postpone(entry, error)
        else:
            self._answered_at = time.monotonic()
            slow = self._answered_at - began > self._router.slow_call_s(1)
            await self._finish(entry, verdict, mark, slow=slow)
        mark.clear()  # not in a `finally`: what is cancelled by the end of the process clears all marks

    async def _prove_server(self, entry: InFlightPhoto) -> None:
        """Return when the server answers, so that a failure right after this may be the photo's.

        A photo that failed alone before is tried only after many known-good images in a row. Another cause
        that ends the server or the edge would probably do so during one of these, and not during the photo.
        """
        if not entry.attempts and time.monotonic() - self._answered_at < _FRESH_S:
            return
        times = controls(entry.attempts, random.random())  # noqa: S311  # no secret
        await retry_until_ok(
            self._bus,
            "model",
            lambda: self._classifier.check_repeatedly(times),
            lambda error: self._actions.defer([entry], error),
        )

    def _begin(self, entry: InFlightPhoto) -> Mark:
        mark = self._marks.set([entry.key], alone=True)
        log.info(
            "photo.tried_alone",
            photo_id=entry.photo.photo_id,
            device=entry.photo.device,
            attempt=entry.attempts + 1,
        )
        return mark

    async def _watch(self, entry: InFlightPhoto, error: UnfinishedError, mark: Mark) -> None:
        """Wait for a slow photo until its deadline, then reject it; return when its work has really ended."""
        self._watched += 1
        self._queue.end_expensive(entry.photo.device)  # it may be decoded for minutes
        try:
            await self._wait_or_reject(entry, error, mark)
        finally:
            self._watched -= 1
            self._queue.wake()
        mark.clear()

    async def _wait_or_reject(self, entry: InFlightPhoto, error: UnfinishedError, mark: Mark) -> None:
        left_s = self._predictor.timeout_s
        while not error.call.done():
            if left_s <= 0:
                self._queue.isolate(entry.photo.device, failed=True)
                await self._reject(entry, str(error), entry.attempts + 1)
                mark.clear()
                await asyncio.wait({error.call})
                self._queue.alone_done(entry.photo.device, answered=False)
                return
            step_s = min(_STEP_S, left_s)
            await asyncio.wait({error.call}, timeout=step_s)
            # Only time in which the server works counts: it, or this process, may have been suspended.
            if not error.call.done() and await self._classifier.works():
                left_s -= step_s
        try:
            verdict = self._classifier.interpret(entry, error.call.result())
        except (TransientError, asyncio.CancelledError):
            await self._failed(entry, error)
        except Exception as refused:  # noqa: BLE001  # BadInputError: the next attempt finds the fault
            await self._failed(entry, ModelUnavailableError(str(refused)))
        else:
            await self._finish(entry, verdict, mark, slow=True)

    async def _finish(
        self, entry: InFlightPhoto, verdict: Prediction | Rejected, mark: Mark, *, slow: bool
    ) -> None:
        await self._actions.settle([(entry, verdict)], mark.clear)
        if slow:
            self._queue.isolate(entry.photo.device, failed=True)
        self._queue.alone_done(entry.photo.device, answered=True)

    async def _failed(self, entry: InFlightPhoto, error: TransientError) -> None:
        self._bus.counters.add("photo.failed_alone")
        await self._on_disk(entry, lambda connection: attempts.add(connection, [entry.key], now_ms()))
        entry.suspected = True
        entry.attempts += 1
        log.warning(
            "photo.failed_alone",
            photo_id=entry.photo.photo_id,
            device=entry.photo.device,
            attempt=entry.attempts,
            reason=str(error),
        )
        self._queue.isolate(entry.photo.device, failed=True)
        if entry.attempts >= MAX_ATTEMPTS:
            await self._reject(entry, str(error), entry.attempts)
        else:
            self._actions.defer([entry], error)
            self._queue.retry_alone(entry)
        self._queue.alone_done(entry.photo.device, answered=False)

    async def _postpone(self, entry: InFlightPhoto, error: TransientError) -> None:
        """Let a photo wait that is not at fault."""
        self._actions.defer([entry], error)
        await self._bus.report_degraded("model", str(error))
        await asyncio.sleep(next(self._delays))
        self._queue.retry_alone(entry)
        self._queue.alone_done(entry.photo.device, answered=False)

    async def _reject(self, entry: InFlightPhoto, reason: str, tries: int) -> None:
        await self._on_disk(entry, lambda connection: attempts.exhaust(connection, entry.key, now_ms()))
        sentence = f"not classified in {tries} attempts with this photo alone: {reason}"
        self._actions.reject(entry, Rejected(entry.photo, "corrupt-image", sentence))

    async def _on_disk(self, entry: InFlightPhoto, work: Callable[..., None]) -> None:
        await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(work),
            lambda error: self._actions.defer([entry], error),
        )
        self._known.add_suspected(entry.key)


def controls(attempts: int, drawn: float) -> int:
    """Return how many known-good images must be classified before an attempt with a photo alone.

    Drawn between bounds that grow with the attempts, so that nothing which ends a process at a certain call,
    or at random, ends it during the same photo again and again.

    Args:
        attempts: Those before that ended the server or the edge.
        drawn: A random number, 0 to 1.
    """
    least = _CONTROLS[min(attempts, len(_CONTROLS) - 1)]
    return least + round(drawn * (least - 1))
