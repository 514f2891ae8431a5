"""Turn classified photos into samples for the cloud."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, repeat
from typing import NamedTuple

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.sqlite import Database, StorageError
from edge.harvest import history
from edge.harvest.history import HarvestedSample
from edge.harvest.recent_photos import AnsweredPhoto, RecentPhotos
from edge.harvest.samples import AdmittedSample, make_sample
from edge.harvest.selector import Selector
from edge.harvest.shrinking.decoders import Decoders
from edge.harvest.shrinking.image import HashedImage, Shrunk, hash_image, shrink, shrunk_size
from edge.harvest.shrinking.shrinking import Shrinking
from edge.serving.prediction import Prediction
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.image import DEFAULT_LIMITS, ImageFacts, ImageLimits
from schemas.image.signatures import JPEG_SIGNATURE
from schemas.lanes import AUDIT, AUTO, FEEDBACK
from schemas.messages import Feedback, Photo, Sample
from schemas.policy_rules import HarvestRules
from schemas.topics import SAMPLE

log = structlog.get_logger()

OUTBOX_FULL = "outbox-full"
_UNDECODABLE = "undecodable"
_DAMAGED = "damaged"

_ENVELOPE_BYTES = 100_000
_BYTES_PER_PIXEL = 0.25
"""Of a usual photo as JPEG; the real size of a sample is counted once it is shrunk."""


class HashedPhoto(NamedTuple):
    """The difference hash of a photo, its damage and facts; or why it is not harvested and has no hash."""

    dhash: int | None
    refused: str = ""
    damaged: str | None = None
    facts: ImageFacts | None = None


class Sampler:
    """Select photos, make samples of them and admit these to the outbox.

    Args:
        rules: In force until `set_rules`.
        outbox: For the samples.
        max_bytes: Largest encoded sample that the uplink carries.
        recent_bytes: Memory for photos that were not harvested, in case of a label.
        limits: Photos that exceed them are not decoded.
        clock: Seconds of a monotonic clock.
        decoders: Threads that decode; its own by default.
        shrinking: Shrinks samples after the answer; without it they are shrunk before.
    """

    def __init__(
        self,
        rules: HarvestRules,
        outbox: Outbox,
        *,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        recent_bytes: int = 0,
        limits: ImageLimits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        decoders: Decoders | None = None,
        shrinking: Shrinking | None = None,
    ) -> None:
        self._clock = clock
        self._selector = Selector(rules)
        self._outbox = outbox
        self._max_bytes = max_bytes
        self._recent = RecentPhotos(recent_bytes)
        self._limits = limits
        self._decoders = decoders or Decoders()
        self._shrinking = shrinking
        self._admitting = asyncio.Lock()

    async def load(self, database: Database) -> None:
        """Count the samples of earlier runs, and read the node's key. Call once, before the first photo.

        Raises:
            StorageError: The database cannot be read.
        """
        self._selector.audit_key = await database.run(history.audit_key)
        boot = history.boot_id()
        samples = await database.run(
            lambda connection: history.load(connection, self._clock(), now_ms(), boot)
        )
        self._selector.restore(samples)

    def set_rules(self, rules: HarvestRules) -> None:
        """Replace the rules; samples harvested so far still count."""
        self._selector.rules = rules

    def refund(self, photo_id: str) -> None:
        """Stop counting a sample against caps and quota, because the cloud had it already; idempotent."""
        self._selector.budget.refund(photo_id)

    def forget(self, covers: Callable[[str, str], bool], photo_ids: AbstractSet[str]) -> None:
        """Forget photos: those for labels, and the hashes of harvested ones, which no longer count.

        Args:
            covers: Whether a photo is to be forgotten, by device and photo id.
            photo_ids: Of the harvested ones.
        """
        self._recent.forget(covers)
        self._selector.seen.forget(photo_ids, covers)
        for photo_id in photo_ids:
            self._selector.budget.refund(photo_id)

    async def hash_photos(
        self,
        photos: Sequence[tuple[bytes, str | None]],
        *,
        cheap: bool = False,
        expensive: bool = False,
    ) -> list[HashedPhoto]:
        """Compute the difference hash of each photo, and find damage that only decoding reveals.

        In one thread for all: handing each over would cost more than most hashes. If one of them occupies the
        decoder, those behind it are not harvested. Cheap ones stay in this thread, for the same reason.
        Safe to cancel.

        Args:
            photos: Encoded image and device of those in a call to the model server.
            cheap: Whether decoding all of them takes less than handing them over to a thread and back.
            expensive: Whether decoding may take much longer than for usual photos.
        """
        now = self._clock()
        refused = [self._selector.exhausted_cap(now, device) for _, device in photos]
        # A photo that cannot become a sample needs no hash, but decoding a JPEG reveals its damage.
        is_decoded = [
            cap is None or image.startswith(JPEG_SIGNATURE)
            for (image, _), cap in zip(photos, refused, strict=True)
        ]
        images = [image for (image, _), wanted in zip(photos, is_decoded, strict=True) if wanted]
        hashes: list[HashedImage | None] = []
        if images and cheap:
            _hash_each(images, self._limits, hashes)
        elif images:
            await self._decoders.run(lambda: _hash_each(images, self._limits, hashes), expensive=expensive)
        hashed = chain(list(hashes), repeat(None))  # a copy: a thread that was given up may still append
        return [
            _hashed(next(hashed) if wanted else None, cap)
            for wanted, cap in zip(is_decoded, refused, strict=True)
        ]

    async def sample(
        self, photo: Photo, hashed: HashedPhoto, prediction: Prediction
    ) -> tuple[AdmittedSample | None, str]:
        """Decide about a photo and make its sample.

        Returns:
            The sample and its lane; or None and the reason of the refusal. A sample holds room in the outbox
            until `commit` or `abort`.
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
        if lane == AUTO and hashed.damaged is not None:
            return None, _DAMAGED  # the model is confident about what is left, and did not see the rest
        if (found := await self._shrink(photo, hashed)) is None:
            return None, _UNDECODABLE
        shrunk, later_bytes = found
        inclusion = share if lane == AUDIT else None
        sample = make_sample(photo, shrunk, hashed.dhash, prediction, lane=lane, inclusion=inclusion)
        return await self._admit(sample, later_bytes)

    def commit(self, admitted: AdmittedSample) -> None:
        """Send a sample whose transaction was committed, after it is shrunk."""
        if admitted.original is None or self._shrinking is None:
            self._outbox.commit(admitted.item)
        else:
            self._shrinking.put(admitted)

    def abort(self, admitted: AdmittedSample) -> None:
        """Release the room of a sample that is not needed."""
        self._outbox.abort(admitted.item)
        if admitted.original is not None and self._shrinking is not None:
            self._shrinking.withdraw()

    async def run(self, bus: Bus, idle: Callable[[], Awaitable[None]]) -> None:
        """Shrink samples after the answers until cancelled; see `Shrinking.run`."""
        if self._shrinking is not None:
            await self._shrinking.run(bus, self._selector.budget, idle)

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
        refused = self._selector.refusal(FEEDBACK, prediction.label, 0, self._clock(), label.device)
        if refused is not None:
            return None, refused  # before the cost of decoding
        hashed = await self._decoders.run(lambda: hash_image(photo.image, self._limits), expensive=True)
        shrunk = await self._shrink_now(photo, damaged=hashed is not None and hashed.damaged is not None)
        if hashed is None or shrunk is None:  # it never will be: free the memory
            self._recent.remove(label.device, label.photo_id)
            return None, _UNDECODABLE
        sample, harvest = await self._admit(
            make_sample(photo, shrunk, hashed.dhash, prediction, lane=FEEDBACK)
        )
        if sample is not None:  # after a refusal the photo stays, for a label when there is room
            self._recent.remove(label.device, label.photo_id)
        return sample, harvest

    async def _admit(
        self, sample: Sample, later_bytes: int | None = None
    ) -> tuple[AdmittedSample | None, str]:
        """Admit a sample to the outbox, as it is or, with its probable size, to be shrunk later."""
        entry = HarvestedSample(
            photo_id=sample.photo_id,
            device=sample.device,
            dhash=int(sample.dhash, 16),
            label=sample.label,
            lane=sample.lane,
            size_bytes=len(sample.image) if later_bytes is None else later_bytes,
            at=self._clock(),
        )
        payload = encode(SAMPLE, sample)
        # One at a time: `Outbox.admit` awaits between the check of the caps and the count, and two samples
        # that pass the check together would exceed a cap.
        async with self._admitting:
            refused = self._selector.refusal(
                entry.lane, entry.label, entry.size_bytes, entry.at, entry.device
            )
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
            if later_bytes is None or self._shrinking is None:
                return AdmittedSample(item, entry), entry.lane
            self._shrinking.promise()
            return AdmittedSample(item, entry, original=sample), entry.lane

    async def _shrink(self, photo: Photo, hashed: HashedPhoto) -> tuple[Shrunk, int | None] | None:
        """Return the image of a sample, and its probable size if it is shrunk later; None if that fails."""
        facts = hashed.facts
        if facts is not None and facts.exact and hashed.damaged is None:
            size = shrunk_size(facts)
            as_it_is = Shrunk(photo.image, facts.width, facts.height)
            if size is None:
                return as_it_is, None
            fits = len(photo.image) + _ENVELOPE_BYTES <= self._max_bytes  # as it is, after a failure
            if fits and self._shrinking is not None and self._shrinking.has_room():
                return as_it_is, min(len(photo.image), round(_BYTES_PER_PIXEL * size[0] * size[1]))
        shrunk = await self._shrink_now(photo, damaged=hashed.damaged is not None)
        return None if shrunk is None else (shrunk, None)

    async def _shrink_now(self, photo: Photo, *, damaged: bool) -> Shrunk | None:
        return await self._decoders.run(
            lambda: shrink(photo.image, limits=self._limits, damaged=damaged), expensive=True
        )


def _hash_each(images: Sequence[bytes], limits: ImageLimits, hashes: list[HashedImage | None]) -> None:
    """Append the hash of each image, None for one that cannot be decoded."""
    for image in images:
        try:
            hashes.append(hash_image(image, limits))
        except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
            log.debug("photo.undecodable", error=repr(error))
            hashes.append(None)


def _hashed(image: HashedImage | None, cap: str | None) -> HashedPhoto:
    if cap is not None:
        return HashedPhoto(None, cap, damaged=image and image.damaged)
    if image is None:
        return HashedPhoto(None, _UNDECODABLE)
    return HashedPhoto(image.dhash, damaged=image.damaged, facts=image.facts)
