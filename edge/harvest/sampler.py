"""Turn classified photos into samples for the cloud."""

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
from edge.harvest.image import Shrunk, shrink
from edge.harvest.image import dhash as dhash_of
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


class HashedPhoto(NamedTuple):
    """The difference hash of a photo, or the reason not to harvest it without one."""

    dhash: int | None
    refused: str = ""


class AdmittedSample(NamedTuple):
    """A sample that has room in the outbox and is not on the disk yet."""

    item: Item
    sample: HarvestedSample

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the sample and its row in the history in the transaction of the connection."""
        Outbox.write(connection, self.item)
        history.write(connection, self.sample, now_ms())


class Sampler:
    """Select photos, make samples of them and admit these to the outbox.

    Args:
        rules: In force until `set_rules`.
        outbox: For the samples.
        max_bytes: Largest encoded sample that the uplink carries.
        recent_bytes: Memory for photos that were not harvested, in case of a label.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        rules: HarvestRules,
        outbox: Outbox,
        *,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        recent_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._selector = Selector(rules)
        self._outbox = outbox
        self._max_bytes = max_bytes
        self._recent = RecentPhotos(recent_bytes)
        self._decoding = asyncio.Semaphore(_DECODERS)
        self._admitting = asyncio.Lock()

    async def load(self, database: Database) -> None:
        """Count the samples of earlier runs. Call once, before the first photo.

        Raises:
            StorageError: The database cannot be read.
        """
        samples = await database.run(lambda connection: history.load(connection, self._clock(), now_ms()))
        self._selector.restore(samples)

    def set_rules(self, rules: HarvestRules) -> None:
        """Replace the rules; samples harvested so far still count."""
        self._selector.rules = rules

    def refund(self, photo_id: str) -> None:
        """Stop counting a sample against caps and quota, because the cloud had it already; idempotent."""
        self._selector.budget.refund(photo_id)

    async def hash_photo(self, image: bytes) -> HashedPhoto:
        """Compute the difference hash of an encoded photo, unless a cap is exhausted. Safe to cancel."""
        # Decoding is half of what a photo costs under load; without room for a sample it would be wasted.
        if (cap := self._selector.exhausted_cap(self._clock())) is not None:
            return HashedPhoto(None, cap)
        dhash = await self._decode(dhash_of, image)
        return HashedPhoto(dhash, _UNDECODABLE if dhash is None else "")

    async def sample(
        self, photo: Photo, hashed: HashedPhoto, prediction: Prediction
    ) -> tuple[AdmittedSample | None, str]:
        """Decide about a photo and make its sample.

        Returns:
            The sample and its lane; or None and the reason of the refusal. A sample holds room in the outbox
            until `Outbox.commit` or `Outbox.abort`.
        """
        if hashed.dhash is None:
            return None, hashed.refused
        # Before any await: a policy that arrives while the photo is shrunk must not change its probability.
        share = self._selector.rules.audit_share
        lane, refused = self._selector.choose(
            photo.photo_id, photo.device, hashed.dhash, prediction, self._clock()
        )
        if lane is None:
            return None, refused or "unwanted"
        shrunk = await self._decode(shrink, photo.image)
        if shrunk is None:
            return None, _UNDECODABLE
        inclusion = share if lane == AUDIT else None
        sample = _sample(photo, shrunk, hashed.dhash, prediction, lane=lane, inclusion=inclusion)
        return await self._admit(sample)

    def keep_for_labels(self, photo: Photo, prediction: Prediction) -> None:
        """Keep a photo that was not harvested, in case of a label."""
        self._recent.add(AnsweredPhoto(photo, prediction))

    async def sample_labelled(self, label: Feedback) -> tuple[AdmittedSample | None, str] | None:
        """Make the sample of a labelled photo; only caps can refuse it.

        Returns:
            As `sample`; None if the photo is not kept here.
        """
        answered = self._recent.find(label.device, label.photo_id)
        if answered is None:
            return None
        photo, prediction = answered
        refused = self._selector.refusal(FEEDBACK, prediction.label, 0, self._clock())
        if refused is not None:
            return None, refused  # before the cost of decoding
        dhash = await self._decode(dhash_of, photo.image)
        shrunk = await self._decode(shrink, photo.image)
        if dhash is None or shrunk is None:  # it never will be: free the memory
            self._recent.remove(label.device, label.photo_id)
            return None, _UNDECODABLE
        sample, harvest = await self._admit(_sample(photo, shrunk, dhash, prediction, lane=FEEDBACK))
        if sample is not None:  # after a refusal the photo stays, for a label when there is room
            self._recent.remove(label.device, label.photo_id)
        return sample, harvest

    async def _admit(self, sample: Sample) -> tuple[AdmittedSample | None, str]:
        entry = HarvestedSample(
            photo_id=sample.photo_id,
            device=sample.device,
            dhash=int(sample.dhash, 16),
            label=sample.label,
            lane=sample.lane,
            size_bytes=len(sample.image),
            at=self._clock(),
        )
        payload = encode(SAMPLE, sample)
        # One at a time: `Outbox.admit` awaits between the check of the caps and the count, and two samples
        # that pass the check together would exceed a cap.
        async with self._admitting:
            refused = self._selector.refusal(entry.lane, entry.label, entry.size_bytes, entry.at)
            if refused is not None:
                return None, refused
            if len(payload) > self._max_bytes:
                return None, "too-large"
            try:
                item = await self._outbox.admit(sample.photo_id, SAMPLE.name(node=sample.node), payload)
            except (OutboxFullError, StorageError):  # costs the sample, never the result of the photo
                return None, OUTBOX_FULL
            if item is None:
                return None, "already-waiting"
            self._selector.record(entry)
            return AdmittedSample(item, entry), entry.lane

    async def _decode(self, function: Callable[[bytes], T], image: bytes) -> T | None:
        """Run a function that decodes an image in a thread; return None if Pillow cannot decode it."""
        async with self._decoding:  # a decoded photo is a hundred times its encoded size
            try:
                return await asyncio.to_thread(function, image)
            except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
                log.debug("photo.undecodable", error=repr(error))
                return None


def _sample(
    photo: Photo,
    shrunk: Shrunk,
    dhash: int,
    prediction: Prediction,
    *,
    lane: str,
    inclusion: float | None = None,
) -> Sample:
    return Sample(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        image=shrunk.image,
        width=shrunk.width,
        height=shrunk.height,
        dhash=f"{dhash:016x}",
        lane=lane,
        label=prediction.label,
        confidence=prediction.confidence,
        scores=prediction.scores,
        raw_confidence=prediction.raw_confidence,
        margin=prediction.margin,
        entropy=prediction.entropy,
        novelty=prediction.novelty,
        inclusion=inclusion,
        model=prediction.model,
        model_version=prediction.version,
        embedding=prediction.embedding,
        taken_at_ms=photo.taken_at_ms,
        harvested_at_ms=now_ms(),
    )
