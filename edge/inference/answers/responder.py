"""Persist a photo's result, publish it, then acknowledge the photo.

The result and its sample become durable in one transaction, so that a kill at any moment leaves one recorded
result and at most one sample of a photo.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from msgspec import structs

from bus.backoff import backoff
from bus.metrics import Durations
from bus.mqtt.client import Bus
from bus.mqtt.errors import BrokerConnectionError, MessageTooLargeError, PublishRefusedError
from bus.mqtt.retry import retry_until_ok
from bus.observability.metric_catalogue import DURATION_BOUNDS_S
from bus.observability.tracing import Span, shared_step
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import Sampler
from edge.harvest.samples import AdmittedSample
from edge.inference import attempts
from edge.inference.answers import result_log, results
from edge.inference.answers.repetition import id_reused
from edge.inference.known_photos import KnownPhotos
from edge.inference.validation import Rejected
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto, PhotoKey
from schemas.codec import content_id
from schemas.errors import TransientError
from schemas.messages import Photo, Result
from schemas.topics import RESULT

log = structlog.get_logger()

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_MOST_BEFORE_REFUSALS = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """A photo with its final result, and its sample if it is harvested.

    Args:
        entry: The photo.
        result: Its result; one that is recorded already wins.
        sample: To be written with the result.
        recorded: False for a result that must not become that of the photo's id.
    """

    entry: InFlightPhoto
    result: Result
    sample: AdmittedSample | None = None
    recorded: bool = True


class Responder:
    """Record final results and publish them.

    Bounded by the photos in flight, of which each has at most one outcome, and 256 refusals of others.

    Args:
        config: For the number of results that are kept.
        bus: Connected by its own `run`.
        database: With the tables of `result_log`, `edge.harvest.history` and the outbox.
        sampler: Sends the samples.
        queue: Photos in flight; answered ones are removed.
        known: Photos in the database; recorded ones are added.
        defer: Called with photos that have to wait and the reason, while the disk fails.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        *,
        database: Database,
        sampler: Sampler,
        queue: FairQueue,
        known: KnownPhotos,
        defer: Callable[[list[InFlightPhoto], TransientError], None],
    ) -> None:
        self._results_kept = config.answers_kept
        self._bus = bus
        self._database = database
        self._sampler = sampler
        self._queue = queue
        self._known = known
        self._defer = defer
        self.on_answered: Callable[[Photo, Result], None] = _ignore
        """Called with each published final result; must not block."""
        self.durations = Durations(DURATION_BOUNDS_S)
        """From the arrival of a photo to its published final result."""
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(config.waiting + _MOST_BEFORE_REFUSALS)

    def put(self, outcome: Outcome) -> None:
        """Queue the outcome of a photo in flight."""
        self._outcomes.put_nowait(outcome)  # never full: there is a place for each photo in flight

    def refuse(self, entry: InFlightPhoto, rejected: Rejected) -> None:
        """Answer a photo that is not in flight, without a record; if many wait, drop and count it."""
        # Not until the queue is full: the last places belong to photos in flight.
        if self._outcomes.qsize() >= _MOST_BEFORE_REFUSALS:
            self._bus.counters.add("photo.shed")
            entry.ack()
        else:
            self.put(Outcome(entry, results.rejected(rejected, entry.arrived_at), recorded=False))

    async def run(self) -> None:
        """Record and publish until cancelled. Safe to cancel: the broker redelivers unanswered photos."""
        async with asyncio.TaskGroup() as publishing:
            while True:
                outcomes = [await self._outcomes.get()]
                while not self._outcomes.empty():  # one transaction for all: a commit is a sync of the disk
                    outcomes.append(self._outcomes.get_nowait())
                recorded = await self._make_durable(outcomes)
                for outcome in outcomes:
                    self._queue.release_share(outcome.entry)
                    result = outcome.result
                    if outcome.recorded:
                        result = recorded.get(outcome.entry.key, result)
                    publishing.create_task(self._publish(outcome.entry, result), name="edge.answer")

    async def _make_durable(self, outcomes: list[Outcome]) -> dict[PhotoKey, Result]:
        """Write results and samples; return the results that were recorded before, which win."""
        began = time.monotonic()
        outcomes = [outcome for outcome in outcomes if outcome.recorded]
        recorded = await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: _record(connection, outcomes, self._results_kept)),
            lambda error: self._defer([outcome.entry for outcome in outcomes], error),
        )
        # While the photos are still in flight: one that is sent again from now on finds its result.
        new = {outcome.entry.key: None for outcome in outcomes if outcome.entry.key not in recorded}
        self._known.add_answered(list(new))
        if outcomes and outcomes[0].entry.span is not None:
            shared_step([outcome.entry.span for outcome in outcomes], "record", since=began)
        for outcome in outcomes:
            if outcome.sample is not None:
                # Two deliveries of a photo may both be classified before the first result is recorded.
                is_new = outcome.entry.key not in recorded
                (self._sampler.commit if is_new else self._sampler.abort)(outcome.sample)
        return recorded

    async def _publish(self, entry: InFlightPhoto, result: Result) -> None:
        """Publish a result, over as many connections as it takes, then acknowledge the photo."""
        # Set only here: the recorded result may answer the photo again, in another trace.
        trace = entry.photo.trace
        if entry.span is not None:
            publishing = entry.span.begin("publish", RESULT)
            trace = publishing.traceparent
        if trace is not None:
            result = structs.replace(result, trace=trace)
        for delay_s in backoff(_FIRST_RETRY_S, _LAST_RETRY_S):
            await self._bus.connected()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
                break
            except PublishRefusedError as error:
                # Its sender keeps the photo and sends it again; kept here, it would occupy a place in flight.
                self._bus.counters.add("result.refused")
                log.error("result.refused", device=result.device, photo_id=result.photo_id, error=str(error))  # noqa: TRY400
                break
            except BrokerConnectionError:
                self._bus.counters.add("result.unpublished")
                await asyncio.sleep(delay_s)
            except MessageTooLargeError as error:
                self._bus.counters.add("result.too_large")
                log.error("result.too_large", photo_id=result.photo_id, error=str(error))  # noqa: TRY400
                if (short := results.shortened(result)) == result:
                    break  # and acknowledge it: a later attempt would fail in the same way
                result = short
        entry.ack()  # not before the broker has the result: a crash in between would lose it
        if entry.span is not None:
            publishing.end()
            _end_trace(entry.span, result)
        self._queue.remove(entry)
        self._bus.counters.add(f"result.{result.status}")
        self.on_answered(entry.photo, result)
        self.durations.observe(time.monotonic() - entry.arrived_at)
        log.info(
            "photo.answered",
            photo_id=result.photo_id,
            device=result.device,
            status=result.status,
            label=result.label,
            confidence=result.confidence,
            code=result.code,
            reason=result.reason,
            harvest=result.harvest,
            edge_ms=result.edge_ms,
        )


def _ignore(_photo: Photo, _result: Result) -> None:
    """Do nothing with a published result."""


def _end_trace(span: Span, result: Result) -> None:
    """End the span of a photo that was answered."""
    span.end(
        status=result.status,
        code=result.code,
        label=result.label,
        model=result.model,
        model_version=result.model_version,
        harvest=result.harvest,
    )


def _record(connection: sqlite3.Connection, outcomes: list[Outcome], kept: int) -> dict[PhotoKey, Result]:
    keys = [outcome.entry.key for outcome in outcomes]
    if renewed := [outcome.entry.key for outcome in outcomes if outcome.entry.renew]:
        result_log.forget(connection, renewed)
    # In the same transaction as the insert, so that no second result can slip in.
    recorded = result_log.find(connection, keys)
    new = {key: outcome for key, outcome in zip(keys, outcomes, strict=True) if key not in recorded}
    if recorded:
        _refuse_other_pictures(connection, outcomes, recorded)
    images = {key: outcome.entry.photo.image for key, outcome in new.items()}
    result_log.record(connection, [outcome.result for outcome in new.values()], kept=kept, images=images)
    if tried := [key for key, one in new.items() if one.entry.suspected and one.result.status == "ok"]:
        attempts.clear(connection, tried)
    for outcome in new.values():
        if outcome.sample is not None:
            outcome.sample.write(connection)
    return recorded


def _refuse_other_pictures(
    connection: sqlite3.Connection, outcomes: list[Outcome], recorded: dict[PhotoKey, Result]
) -> None:
    """Replace the recorded results of photos that are other pictures by rejections."""
    pictures = result_log.pictures(connection, list(recorded))
    for outcome in outcomes:
        key, photo = outcome.entry.key, outcome.entry.photo
        if photo.image and key in pictures and pictures[key] != content_id(photo.image):
            recorded[key] = results.rejected(id_reused(photo), outcome.entry.arrived_at)
