"""From a classified photo to a sample on its way to the cloud: the shell around `edge/harvest.py`."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from bus.outbox import Item, Outbox, OutboxFullError
from bus.presence import now_ms
from edge.harvest import Harvester, Shrunk, dhash, shrink
from edge.scores import Scored
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.messages import HarvestRules, Photo, Sample
from schemas.topics import SAMPLE

log = structlog.get_logger()

T = TypeVar("T")

OUTBOX_FULL = "outbox-full"

_DECODERS = 2


class Sampler:
    """Decides whether a photo is harvested and makes the sample.

    Args:
        rules: In force until `follow` brings others.
        outbox: Where samples go.
        most_bytes: The largest sample that the way to the cloud takes.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        rules: HarvestRules,
        outbox: Outbox,
        *,
        most_bytes: int = MAX_PAYLOAD_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._harvester = Harvester(rules)
        self._outbox = outbox
        self._most_bytes = most_bytes
        self._decoding = asyncio.Semaphore(_DECODERS)

    def follow(self, rules: HarvestRules) -> None:
        """Put other rules in force; what was harvested so far still counts."""
        self._harvester.rules = rules

    async def view(self, image: bytes) -> int | None:
        """Return the difference hash of an encoded image, None if Pillow cannot decode it."""
        return await self._decode(dhash, image)

    async def sample(self, photo: Photo, view: int | None, said: Scored) -> tuple[Item | None, str]:
        """Return the sample, admitted to the outbox, and its lane; or None and why not."""
        now = self._clock()
        if view is None:
            return None, "undecodable"
        lane, refused = self._harvester.choose(photo.device, view, said.confidence, now)
        if lane is None:
            return None, refused or "unwanted"
        shrunk = await self._decode(shrink, photo.image)
        if shrunk is None:
            return None, "undecodable"
        if (cap := self._harvester.afford(len(shrunk.image), now)) is not None:
            return None, cap
        item, refused = await self._admit(_sample(photo, shrunk, view, lane, said))
        if item is None:
            return None, refused
        self._harvester.took(photo.device, view, len(shrunk.image), now)
        return item, lane

    async def _admit(self, sample: Sample) -> tuple[Item | None, str]:
        payload = encode(SAMPLE, sample)
        if len(payload) > self._most_bytes:
            return None, "too-large"
        try:
            item = await self._outbox.admit(sample.photo_id, SAMPLE.name(node=sample.node), payload)
        except OutboxFullError:
            return None, OUTBOX_FULL
        return item, "already-waiting"

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


def _sample(photo: Photo, shrunk: Shrunk, view: int, lane: str, said: Scored) -> Sample:
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
        model=said.model,
        model_version=said.version,
        embedding=said.embedding,
        taken_at_ms=photo.taken_at_ms,
        harvested_at_ms=now_ms(),
    )
