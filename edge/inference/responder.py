"""From a photo's outcome to its answer: first on the disk, then to the sender, then the broker may forget it.

The answer and the decision to harvest become durable in one transaction. So whatever is killed when, a photo
has one recorded answer and one sample at most.
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
from schemas.errors import TransientError
from schemas.messages import Result
from schemas.topics import RESULT

log = structlog.get_logger()

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A photo's final answer on its way out, with the sample if it is harvested."""

    work: InFlightPhoto
    result: Result
    sample: AdmittedSample | None = None


class Responder:
    """Records answers and sends them.

    Bounded by the photos in hand, because each has one outcome at most.

    Args:
        config: How many answers are kept.
        bus: Connected by its own `run`.
        database: With the tables of `edge.inference.result_log`, `edge.harvest.history` and the outbox.
        outbox: Where samples go.
        waiting: The photos in hand; those answered leave it.
        defer: Tells the senders of photos that the answer takes longer, and why.
    """

    def __init__(
        self,
        config: EdgeConfig,
        bus: Bus,
        *,
        database: Database,
        outbox: Outbox,
        waiting: FairQueue,
        defer: Callable[[list[InFlightPhoto], TransientError], None],
    ) -> None:
        self._kept = config.answers_kept
        self._bus = bus
        self._database = database
        self._outbox = outbox
        self._waiting = waiting
        self._defer = defer
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(config.waiting)

    def put(self, outcome: Outcome) -> None:
        """Take over a photo in hand."""
        self._outcomes.put_nowait(outcome)

    async def run(self) -> None:
        """Record and answer until cancelled. Safe to cancel: an unanswered photo comes again."""
        async with asyncio.TaskGroup() as answering:
            while True:
                outcomes = [await self._outcomes.get()]
                while not self._outcomes.empty():
                    outcomes.append(self._outcomes.get_nowait())
                before = await self._make_durable(outcomes)
                for outcome in outcomes:
                    self._waiting.release(outcome.work)
                    result = before.get(outcome.work.key, outcome.result)
                    answering.create_task(self._answer(outcome.work, result), name="edge.answer")

    async def _make_durable(self, outcomes: list[Outcome]) -> dict[result_log.Key, Result]:
        """Record answers and samples; returns the answers that were there before and stand."""
        before = await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(lambda connection: _record(connection, outcomes, self._kept)),
            lambda error: self._defer([outcome.work for outcome in outcomes], error),
        )
        for outcome in outcomes:
            if outcome.sample is not None:
                stored = outcome.work.key not in before
                (self._outbox.commit if stored else self._outbox.abort)(outcome.sample.item)
        return before

    async def _answer(self, work: InFlightPhoto, result: Result) -> None:
        """Publish an answer, over as many connections as it takes, then let the broker forget the photo."""
        for delay_s in backoff(_FIRST_RETRY_S, _LAST_RETRY_S):
            await self._bus.connected()
            try:
                await self._bus.publish(RESULT, result, node=result.node, device=result.device)
                break
            except BrokerConnectionError:
                self._bus.counters.add("result.unpublished")
                await asyncio.sleep(delay_s)
        work.ack()
        self._waiting.done(work)
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


def _record(
    connection: sqlite3.Connection, outcomes: list[Outcome], kept: int
) -> dict[result_log.Key, Result]:
    before = result_log.find(connection, [outcome.work.key for outcome in outcomes])
    new = [outcome for outcome in outcomes if outcome.work.key not in before]
    result_log.record(connection, [outcome.result for outcome in new], kept=kept)
    for outcome in new:
        if outcome.sample is not None:
            outcome.sample.write(connection)
    return before
