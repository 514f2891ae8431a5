"""Persist a photo's result, publish it, then acknowledge the photo.

The result and its sample become durable in one transaction, so that a kill at any moment leaves one recorded
result and at most one sample of a photo.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bus.backoff import backoff
from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.retry import retry_until_ok
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import AdmittedSample
from edge.inference import result_log
from edge.inference.fair_queue import FairQueue, InFlightPhoto
from edge.inference.result_log import PhotoKey
from schemas.errors import TransientError
from schemas.messages import Result
from schemas.topics import RESULT

log = structlog.get_logger()

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A photo with its final result, and its sample if it is harvested."""

    entry: InFlightPhoto
    result: Result
    sample: AdmittedSample | None = None


class Responder:
    """Record final results and publish them.

    Bounded by the photos in flight: each has at most one outcome.

    Args:
        config: For the number of results that are kept.
        bus: Connected by its own `run`.
        database: With the tables of `edge.inference.result_log`, `edge.harvest.history` and the outbox.
        outbox: For samples.
        queue: Photos in flight; answered ones are removed.
        defer: Called with photos that have to wait and the reason, while the disk fails.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        *,
        database: Database,
        outbox: Outbox,
        queue: FairQueue,
        defer: Callable[[list[InFlightPhoto], TransientError], None],
    ) -> None:
        self._results_kept = config.answers_kept
        self._bus = bus
        self._database = database
        self._outbox = outbox
        self._queue = queue
        self._defer = defer
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(config.waiting)

    def put(self, outcome: Outcome) -> None:
        """Queue the outcome of a photo in flight."""
        self._outcomes.put_nowait(outcome)  # as large as the bound of photos in flight: never full

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
                    result = recorded.get(outcome.entry.key, outcome.result)
                    publishing.create_task(self._publish(outcome.entry, result), name="edge.answer")

    async def _make_durable(self, outcomes: list[Outcome]) -> dict[PhotoKey, Result]:
        """Write results and samples; return the results that were recorded before, which win."""
        recorded = await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: _record(connection, outcomes, self._results_kept)),
            lambda error: self._defer([outcome.entry for outcome in outcomes], error),
        )
        for outcome in outcomes:
            if outcome.sample is not None:
                # Two deliveries of a photo may both be classified before the first result is recorded.
                is_new = outcome.entry.key not in recorded
                (self._outbox.commit if is_new else self._outbox.abort)(outcome.sample.item)
        return recorded

    async def _publish(self, entry: InFlightPhoto, result: Result) -> None:
        """Publish a result, over as many connections as it takes, then acknowledge the photo."""
        for delay_s in backoff(_FIRST_RETRY_S, _LAST_RETRY_S):
            await self._bus.connected()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
                break
            except BrokerConnectionError:
                self._bus.counters.add("result.unpublished")
                await asyncio.sleep(delay_s)
        entry.ack()  # not before the broker has the result: a crash in between would lose it
        self._queue.remove(entry)
        self._bus.counters.add(f"result.{result.status}")
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


def _record(connection: sqlite3.Connection, outcomes: list[Outcome], kept: int) -> dict[PhotoKey, Result]:
    # In the same transaction as the insert, so that no second result can slip in.
    recorded = result_log.find(connection, [outcome.entry.key for outcome in outcomes])
    new = [outcome for outcome in outcomes if outcome.entry.key not in recorded]
    result_log.record(connection, [outcome.result for outcome in new], kept=kept)
    for outcome in new:
        if outcome.sample is not None:
            outcome.sample.write(connection)
    return recorded
