"""Shrink samples after their photos are answered, when nothing waits for an answer.

A sample that is larger than training size is stored as it was taken, in the transaction of the answer. It is
sent when its shrunk image has replaced it on the disk, so that no answer waits for a JPEG to be written.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from bus.mqtt.client import Bus
from bus.mqtt.retry import retry_until_ok
from bus.outbox import rows
from bus.outbox.admission import Item
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest import history
from edge.harvest.quotas import Budget
from edge.harvest.samples import AdmittedSample
from edge.harvest.shrinking import unshrunk
from edge.harvest.shrinking.decoders import Decoders
from edge.harvest.shrinking.image import Shrunk, shrink
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.image import ImageLimits
from schemas.messages import Sample
from schemas.topics import SAMPLE

log = structlog.get_logger()

MAX_WAITING = 8
_PATIENCE_S = 1.0
_MAX_TRIES = 3


class Shrinking:
    """Samples that are on the disk and not shrunk yet.

    Bounded: beyond `MAX_WAITING`, `has_room` is False and samples are shrunk before the answer.

    Args:
        database: With the tables of `edge.harvest.shrinking.unshrunk`, `edge.harvest.history` and the outbox.
        outbox: Sends the samples.
        decoders: Shared with the hashes.
        limits: Of photos that are decoded.
    """

    def __init__(self, database: Database, outbox: Outbox, decoders: Decoders, limits: ImageLimits) -> None:
        self._database = database
        self._outbox = outbox
        self._decoders = decoders
        self._limits = limits
        self._waiting: asyncio.Queue[AdmittedSample] = asyncio.Queue()
        self._promised = 0

    def has_room(self) -> bool:
        """Return True if one more sample may wait."""
        return self._promised < MAX_WAITING

    def is_empty(self) -> bool:
        """Return True if no sample waits."""
        return not self._promised

    def promise(self) -> None:
        """Count a sample that was admitted; `put` or `withdraw` must follow."""
        self._promised += 1

    def withdraw(self) -> None:
        """Count a sample no longer."""
        self._promised -= 1

    def put(self, admitted: AdmittedSample) -> None:
        """Shrink and send a sample that is on the disk."""
        self._waiting.put_nowait(admitted)

    async def load(self) -> None:
        """Shrink the samples that an earlier run left; call once, before the outbox loads.

        Each is tried once: it may have ended that run.

        Raises:
            StorageError: The disk failed.
        """
        for topic, payload in await self._database.run(unshrunk.left):
            try:
                sample = decode(SAMPLE, payload, SAMPLE.match(topic) or {})
            except CodecError as error:  # the outbox sends it, and the cloud refuses it with the reason
                log.warning("sample.unshrunk", topic=topic, error=str(error))
                continue
            shrunk = await self._shrink(sample)
            small = sample if shrunk is None else _with(sample, shrunk)
            item = Item(sample.photo_id, topic, encode(SAMPLE, small), 0)
            await self._database.run(partial(_replace, item=item, small=small))
        await self._database.run(unshrunk.clear_all)

    async def run(self, bus: Bus, budget: Budget, idle: Callable[[], Awaitable[None]]) -> None:
        """Shrink and send samples until cancelled. Safe to cancel: the next run continues.

        Args:
            bus: Publishes the Status.
            budget: Counts the bytes of samples.
            idle: Waits until no photo waits for an answer; after a second the sample has its turn anyway.
        """
        while True:
            admitted = await self._waiting.get()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await idle()
            await self.finish(admitted, bus, budget)
            self._promised -= 1

    async def finish(self, admitted: AdmittedSample, bus: Bus, budget: Budget) -> None:
        """Replace a sample on the disk by its shrunk image, then let the outbox send it."""
        assert admitted.original is not None
        shrunk = None
        for _ in range(_MAX_TRIES):  # all decoders may be occupied
            if (shrunk := await self._shrink(admitted.original)) is not None:
                break
        small = admitted.original if shrunk is None else _with(admitted.original, shrunk)
        old = admitted.item
        item = Item(old.message_id, old.topic, encode(SAMPLE, small), old.created_ms)
        # It holds room in the outbox until it is committed, so wait for the disk, never give up.
        replace = partial(_replace, item=item, small=small)
        await retry_until_ok(bus, "disk", lambda: self._database.run(replace))
        budget.correct(small.photo_id, len(small.image))
        self._outbox.commit(item)

    async def _shrink(self, sample: Sample) -> Shrunk | None:
        return await self._decoders.run(lambda: shrink(sample.image, limits=self._limits), expensive=True)


def _with(sample: Sample, shrunk: Shrunk) -> Sample:
    return msgspec.structs.replace(sample, image=shrunk.image, width=shrunk.width, height=shrunk.height)


def _replace(connection: sqlite3.Connection, item: Item, small: Sample) -> None:
    rows.replace(connection, item.message_id, item.topic, item.payload)
    history.correct(connection, small.photo_id, len(small.image))
    unshrunk.clear(connection, small.photo_id)
