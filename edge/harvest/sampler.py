"""Turn a classified photo into a sample for the cloud: the shell around `edge/harvest/selector.py`."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import structlog

from bus.mqtt.presence import now_ms
from bus.outbox.outbox import Item, Outbox, OutboxFullError
from bus.outbox.sqlite import Database, StorageError
from edge.harvest import history
from edge.harvest.history import HarvestedSample
from edge.harvest.image import Shrunk, dhash, shrink
from edge.harvest.recent_photos import AnsweredPhoto, RecentPhotos
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.lanes import AUDIT, FEEDBACK
from schemas.messages import Feedback, HarvestRules, Photo, Sample
from schemas.topics import SAMPLE

log = structlog.get_logger()

T = TypeVar("T")

OUTBOX_FULL = "outbox-full"
_UNDECODABLE = "undecodable"

_DECODERS = 2


class View(NamedTuple):
    """A photo's difference hash, or why there is none: it cannot be harvested."""

    dhash: int | None
    refused: str = ""


class AdmittedSample(NamedTuple):
    """A sample that was admitted to the outbox and is not yet on the disk, and what to remember of it."""

    item: Item
    sample: HarvestedSample

    def write(self, connection: sqlite3.Connection) -> None:
        """Bring both to the disk, in one transaction."""
        Outbox.write(connection, self.item)
        history.write(connection, self.sample, now_ms())


class Sampler:
    """Decides whether a photo is harvested and makes the sample.

    Args:
        rules: In force until `follow` brings others.
        outbox: Where samples go.
        most_bytes: The largest sample that the way to the cloud takes.
        recent_bytes: Kept of photos that were not harvested, for a label that follows.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        rules: HarvestRules,
        outbox: Outbox,
        *,
        most_bytes: int = MAX_PAYLOAD_BYTES,
        recent_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._harvester = Selector(rules)
        self._outbox = outbox
        self._most_bytes = most_bytes
        self._recent = RecentPhotos(recent_bytes)
        self._decoding = asyncio.Semaphore(_DECODERS)
        self._admitting = asyncio.Lock()

    async def load(self, database: Database) -> None:
        """Take up what earlier runs harvested. Call once, before the first photo."""
        samples = await database.run(lambda connection: history.load(connection, self._clock(), now_ms()))
        self._harvester.restore(samples)

    def follow(self, rules: HarvestRules) -> None:
        """Put other rules in force; what was harvested so far still counts."""
        self._harvester.rules = rules

    def refund(self, photo_id: str) -> None:
        """Give back what a sample spent of caps and quota, because the cloud had it already; once at most."""
        self._harvester.spent.refund(photo_id)

    async def view(self, image: bytes) -> View:
        """Return the view that an encoded image shows; where a cap leaves no room, nothing is decoded."""
        if (full := self._harvester.full(self._clock())) is not None:
            return View(None, full)
        found = await self._decode(dhash, image)
        return View(found, _UNDECODABLE if found is None else "")

    async def sample(self, photo: Photo, view: View, said: Prediction) -> tuple[AdmittedSample | None, str]:
        """Return the sample, admitted to the outbox, and its lane; or None and why not."""
        if view.dhash is None:
            return None, view.refused
        share = self._harvester.rules.audit_share
        lane, refused = self._harvester.choose(photo.photo_id, photo.device, view.dhash, said, self._clock())
        if lane is None:
            return None, refused or "unwanted"
        shrunk = await self._decode(shrink, photo.image)
        if shrunk is None:
            return None, _UNDECODABLE
        inclusion = share if lane == AUDIT else None
        return await self._admit(_sample(photo, shrunk, view.dhash, said, lane=lane, inclusion=inclusion))

    def keep(self, photo: Photo, said: Prediction) -> None:
        """Keep a photo that was not harvested, for a label that follows."""
        self._recent.keep(AnsweredPhoto(photo, said))

    async def labelled(self, label: Feedback) -> tuple[AdmittedSample | None, str] | None:
        """Return the sample of a photo that was labelled, as `sample` does; None if it is not here.

        A person's word goes before all rules but the caps.
        """
        kept = self._recent.find(label.device, label.photo_id)
        if kept is None:
            return None
        refused = self._harvester.refusal(FEEDBACK, kept.said.label, 0, self._clock())
        if refused is not None:
            return None, refused  # before the work of shrinking it
        view = await self._decode(dhash, kept.photo.image)
        shrunk = await self._decode(shrink, kept.photo.image)
        if view is None or shrunk is None:
            self._recent.forget(label.device, label.photo_id)
            return None, _UNDECODABLE
        taken, lane = await self._admit(_sample(kept.photo, shrunk, view, kept.said, lane=FEEDBACK))
        if taken is not None:
            self._recent.forget(label.device, label.photo_id)
        return taken, lane

    async def _admit(self, sample: Sample) -> tuple[AdmittedSample | None, str]:
        """Admit a sample to the outbox if nothing is in its way, one after the other, so that caps hold."""
        entry = HarvestedSample(
            photo_id=sample.photo_id,
            device=sample.device,
            view=int(sample.dhash, 16),
            label=sample.label,
            lane=sample.lane,
            size_bytes=len(sample.image),
            at=self._clock(),
        )
        payload = encode(SAMPLE, sample)
        async with self._admitting:
            refused = self._harvester.refusal(entry.lane, entry.label, entry.size_bytes, entry.at)
            if refused is not None:
                return None, refused
            if len(payload) > self._most_bytes:
                return None, "too-large"
            try:
                item = await self._outbox.admit(sample.photo_id, SAMPLE.name(node=sample.node), payload)
            except (OutboxFullError, StorageError):
                return None, OUTBOX_FULL
            if item is None:
                return None, "already-waiting"
            self._harvester.record(entry)
            return AdmittedSample(item, entry), entry.lane

    async def _decode(self, work: Callable[[bytes], T], image: bytes) -> T | None:
        """Run something that decodes an image in a thread; None if Pillow cannot decode it.

        At most `_DECODERS` at once, because a decoded photo is a hundred times its encoded size.
        """
        async with self._decoding:
            try:
                return await asyncio.to_thread(work, image)
            except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
                log.debug("edge.undecodable", error=repr(error))
                return None


def _sample(
    photo: Photo, shrunk: Shrunk, view: int, said: Prediction, *, lane: str, inclusion: float | None = None
) -> Sample:
    return Sample(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        image=shrunk.image,
        width=shrunk.width,
        height=shrunk.height,
        dhash=f"{view:016x}",
        lane=lane,
        label=said.label,
        confidence=said.confidence,
        scores=said.scores,
        raw_confidence=said.raw_confidence,
        margin=said.margin,
        entropy=said.entropy,
        novelty=said.novelty,
        inclusion=inclusion,
        model=said.model,
        model_version=said.version,
        embedding=said.embedding,
        taken_at_ms=photo.taken_at_ms,
        harvested_at_ms=now_ms(),
    )
