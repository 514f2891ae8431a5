"""Answer photos that were answered before from the log, and let the others wait for their classification."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.retry import retry_until_ok
from bus.outbox.sqlite import Database
from edge.inference import attempts
from edge.inference.answers import result_log, results
from edge.inference.answers.repetition import id_reused, judge
from edge.inference.answers.responder import Outcome, Responder
from edge.inference.known_photos import KnownPhotos
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto, PhotoKey
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError
from schemas.messages import Result


class _Found(NamedTuple):
    """Rows of some photos in the database, by their keys."""

    results: dict[PhotoKey, Result]
    pictures: dict[PhotoKey, str]
    attempts: dict[PhotoKey, int]


class Recall:
    """Look up photos by device and id.

    Bounded by the photos in flight.

    Args:
        bus: Publishes the Status.
        database: With the tables of `edge.inference.answers.result_log` and `edge.inference.attempts`.
        queue: For photos without a result.
        responder: For photos with one.
        known: Photos that may be in the database; others are not looked up.
        router: Knows which versions may answer.
        defer: Called with photos that have to wait and the reason, while the disk fails.
        waiting: Most photos in flight.
    """

    def __init__(
        self,
        bus: Bus,
        database: Database,
        *,
        queue: FairQueue,
        responder: Responder,
        known: KnownPhotos,
        router: TrafficRouter,
        defer: Callable[[list[InFlightPhoto], TransientError], None],
        waiting: int,
    ) -> None:
        self._bus = bus
        self._database = database
        self._queue = queue
        self._responder = responder
        self._known = known
        self._router = router
        self._defer = defer
        self._admitted: asyncio.Queue[InFlightPhoto] = asyncio.Queue(waiting)

    def put(self, entry: InFlightPhoto) -> None:
        """Look up a photo in flight; let a new one wait for its classification."""
        if entry.key in self._known:
            self._admitted.put_nowait(entry)  # as large as the bound of photos in flight: never full
        else:
            self._queue.enqueue(entry)

    async def run(self) -> None:
        """Look up photos until cancelled. Safe to cancel: the broker redelivers unanswered photos."""
        while True:
            entries = [await self._admitted.get()]
            while not self._admitted.empty():
                entries.append(self._admitted.get_nowait())
            recalled = await self._look_up(entries)  # one job of the database thread for all
            for entry in entries:
                recorded = recalled.results.get(entry.key)
                if recorded is None or not self._answer_again(entry, recorded, recalled):
                    if entry.key in recalled.attempts:
                        entry.suspected, entry.attempts = True, recalled.attempts[entry.key]
                        self._queue.isolate(entry.photo.device)
                    self._queue.enqueue(entry)

    def _answer_again(self, entry: InFlightPhoto, recorded: Result, recalled: _Found) -> bool:
        """Answer a photo whose id was answered before; return False if it is to be classified again."""
        picture, served = recalled.pictures.get(entry.key), self._router.may_answer()
        match judge(entry, recorded, picture, served, now_ms()):
            case "answer again":
                self._bus.counters.add("photo.answered_before")
                self._responder.put(Outcome(entry, recorded))
            case "other picture":
                rejected = id_reused(entry.photo)
                self._bus.counters.add(f"photo.rejected_{rejected.code}")
                result = results.rejected(rejected, entry.arrived_at)
                self._responder.put(Outcome(entry, result, recorded=False))
            case "ask again":
                entry.renew = True
                return False
        return True

    async def _look_up(self, entries: list[InFlightPhoto]) -> _Found:
        keys = [entry.key for entry in entries]

        def recall(connection: sqlite3.Connection) -> _Found:
            found = result_log.find(connection, keys)
            pictures = result_log.pictures(connection, list(found)) if found else {}
            return _Found(found, pictures, attempts.find(connection, keys))

        return await retry_until_ok(
            self._bus,
            "disk",
            lambda: self._database.run(recall),
            lambda error: self._defer(entries, error),
        )
