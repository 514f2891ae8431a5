"""The photos that wait for their batch: live ones before those sent late, bounded."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from bus.delivery import Delivery
from schemas.messages import Photo


@dataclass(slots=True, eq=False)
class Work:
    """A photo being answered.

    Args:
        photo: Checked, not decoded.
        deliveries: Every delivery of it so far; all are acknowledged with the answer.
        arrived_at: Of the first one, seconds of the monotonic clock.
        view: Its difference hash, computed beside the prediction; None if Pillow cannot decode it.
        told: Whether its sender was told that the answer is deferred.
    """

    photo: Photo
    deliveries: list[Delivery[Photo]]
    arrived_at: float
    view: "asyncio.Task[int | None]"
    told: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Device and photo id."""
        return self.photo.device, self.photo.photo_id


@dataclass(slots=True)
class Waiting:
    """Photos in order of arrival. When full, `put` waits, and so the broker keeps what is not yet here."""

    size: int
    _live: deque[Work] = field(default_factory=deque)
    _historical: deque[Work] = field(default_factory=deque)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __len__(self) -> int:
        return len(self._live) + len(self._historical)

    def everyone(self) -> list[Work]:
        """Return all that wait, in the order in which they would be taken."""
        return [*self._live, *self._historical]

    async def put(self, work: Work) -> None:
        """Add a photo, after waiting for room. Safe to cancel: then it is not added."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self) < self.size)
            (self._historical if work.photo.historical else self._live).append(work)
            self._changed.notify_all()

    async def take(self, most: int) -> list[Work]:
        """Wait for at least one photo, then return what there is, at most so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self) > 0)
            batch: list[Work] = []
            while len(batch) < most and len(self):
                batch.append((self._live or self._historical).popleft())
            self._changed.notify_all()
            return batch
