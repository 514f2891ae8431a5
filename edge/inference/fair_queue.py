"""The photos in hand, from arrival to answer: fair between devices, and bounded.

Decisions without I/O. Each device has a line of its own; the lines take turns, and live photos go before
those sent late.
"""

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from edge.inference.flood_control import Throttle
from edge.inference.validation import expired
from schemas.messages import Photo

Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class InFlightPhoto:
    """A photo being answered.

    Args:
        photo: As far as it could be read; nothing of it is decoded.
        ack: Lets the broker forget its newest delivery.
        arrived_at: When it came first, seconds of the monotonic clock.
        told: Whether its sender was told that the answer takes longer.
        counts: Whether it takes up some of its device's share.
    """

    photo: Photo
    ack: Callable[[], None]
    arrived_at: float
    told: bool = False
    counts: bool = False

    @property
    def key(self) -> Key:
        """Device and photo id: two devices may send the same bytes."""
        return self.photo.device, self.photo.photo_id


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that may be in hand: photos of one device, photos, and bytes of their images."""

    per_device: int
    photos: int
    image_bytes: int


class Shed(NamedTuple):
    """A photo for which there is no room, and why."""

    work: InFlightPhoto
    reason: str


@dataclass(slots=True)
class _Lines:
    """A line of photos for each device; the devices take turns."""

    lines: OrderedDict[str, deque[InFlightPhoto]] = field(default_factory=OrderedDict)

    def __iter__(self) -> Iterator[InFlightPhoto]:
        return chain.from_iterable(self.lines.values())

    def append(self, work: InFlightPhoto) -> None:
        self.lines.setdefault(work.photo.device, deque()).append(work)

    def take(self, most: int, per_device: int, busy: Container[str]) -> list[InFlightPhoto]:
        """Let each device that is not busy have a turn, and again until it had `per_device`."""
        taken: list[InFlightPhoto] = []
        for device in [device for device in self.lines if device not in busy] * per_device:
            if len(taken) < most and device in self.lines:
                taken.append(self.lines[device].popleft())
                self.lines.move_to_end(device)
                self._drop_if_empty(device)
        return taken

    def remove(self, work: InFlightPhoto) -> None:
        self.lines[work.photo.device].remove(work)
        self._drop_if_empty(work.photo.device)

    def _drop_if_empty(self, device: str) -> None:
        if not self.lines[device]:
            del self.lines[device]


class FairQueue:
    """The photos in hand, and which of them are classified next.

    When there is no room, a photo of the device that has most in hand gives way; nothing ever waits for room.
    A device that floods rests between its calls while others are about.

    Args:
        bounds: The most that may be in hand.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._in_hand: dict[Key, InFlightPhoto] = {}
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._live = _Lines()
        self._historical = _Lines()
        self._busy: dict[str, float] = {}
        self._resting: dict[str, float] = {}
        self._floods = Throttle()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many photos are in hand."""
        return len(self._in_hand)

    def __contains__(self, work: InFlightPhoto) -> bool:
        return self._in_hand.get(work.key) is work

    @property
    def image_bytes(self) -> int:
        """Bytes of the images in hand."""
        return self._bytes.total()

    def is_redelivery(self, work: InFlightPhoto) -> bool:
        """Tell whether this photo is in hand already; then its newest delivery stands for all."""
        first = self._in_hand.get(work.key)
        if first is None:
            return False
        first.ack()  # the broker still keeps the newest
        first.ack = work.ack
        return True

    def admit(self, work: InFlightPhoto) -> list[Shed]:
        """Take a photo in hand; returns those that give way, it may be among them."""
        device = work.photo.device
        if self._counts[device] >= self._bounds.per_device:
            reason = f"{device} has {self._counts[device]} photos in hand here, the most for one device"
            self._floods.gave_way(device, self._clock())
            return [Shed(work, f"{reason}: send it again later")]
        self._in_hand[work.key] = work
        self._count(work)
        self._floods.came(device, self._clock())
        shed = []
        while (excess := self._excess()) is not None:
            out = self._give_way(work, excess)
            self.done(out)
            self._floods.gave_way(out.photo.device, self._clock())
            shed.append(Shed(out, f"{out.photo.device} has most of all in hand here: send it again later"))
        return shed

    def line_up(self, work: InFlightPhoto) -> None:
        """Let an admitted photo wait for its batch."""
        (self._historical if work.photo.historical else self._live).append(work)
        self._changed.set()

    def everyone(self) -> list[InFlightPhoto]:
        """Return all that wait for their batch."""
        return [*self._live, *self._historical]

    async def take(self, most: int, per_device: int) -> list[InFlightPhoto]:
        """Wait for at least one photo, then return a batch; its devices are busy until `free`.

        While live photos wait, one that was sent late rides along in each batch. Safe to cancel.

        Args:
            most: Photos in the batch, 2 or more.
            per_device: Photos of one device among them.
        """
        while not (batch := self._batch(most, per_device)):
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._changed.wait()
        self._busy.update((work.photo.device, self._clock()) for work in batch)
        return batch

    def free(self, batch: list[InFlightPhoto]) -> None:
        """Let the devices of a batch have another one, those that flood after a rest."""
        now = self._clock()
        for device in {work.photo.device for work in batch}:
            took_s = now - self._busy.pop(device)
            if rest_s := self._floods.rest_s(device, took_s, now):
                self._resting[device] = now + rest_s
        self._changed.set()

    def remove_expired(self, now_ms: int) -> list[InFlightPhoto]:
        """Take those out of their lines that are not worth an answer any more; they are still in hand."""
        late = []
        for lines in (self._live, self._historical):
            late += (in_these := [work for work in lines if expired(work.photo, now_ms)])
            for work in in_these:
                lines.remove(work)
        return late

    def release(self, work: InFlightPhoto) -> None:
        """Give a photo's share back to its device, because its answer is on the way.

        Its sender may have the answer, and send the next photo, before the broker confirms it to us.
        """
        if not work.counts:
            return
        work.counts = False
        _subtract(self._counts, work.photo.device, 1)

    def done(self, work: InFlightPhoto) -> None:
        """Forget a photo: it was answered or gave way."""
        del self._in_hand[work.key]
        self.release(work)
        _subtract(self._bytes, work.photo.device, len(work.photo.image))

    def _batch(self, most: int, per_device: int) -> list[InFlightPhoto]:
        now = self._clock()
        self._resting = {device: until for device, until in self._resting.items() if until > now}
        out = self._busy.keys() | self._resting
        late_waits = any(device not in out for device in self._historical.lines)
        batch = self._live.take(most - 1 if late_waits else most, per_device, out)
        return batch + self._historical.take(1 if batch else most, per_device, out)

    def _rest_s(self) -> float | None:
        """Return how long it is until the first device had its rest, None if none rests."""
        return min(self._resting.values()) - self._clock() if self._resting else None

    def _give_way(self, newcomer: InFlightPhoto, excess: Counter[str]) -> InFlightPhoto:
        """Take the newest photo of the device with most out of its line."""
        devices = {newcomer.photo.device, *self._live.lines, *self._historical.lines}
        greediest = max(devices, key=lambda device: (excess[device], device == newcomer.photo.device))
        if greediest == newcomer.photo.device:
            return newcomer
        lines = self._historical if greediest in self._historical.lines else self._live
        out = lines.lines[greediest][-1]
        lines.remove(out)
        return out

    def _count(self, work: InFlightPhoto) -> None:
        work.counts = True
        self._counts[work.photo.device] += 1
        self._bytes[work.photo.device] += len(work.photo.image)

    def _excess(self) -> Counter[str] | None:
        """Return each device's part of what there is too much of, None if all is within bounds."""
        if len(self._in_hand) > self._bounds.photos:
            return self._counts
        return self._bytes if self.image_bytes > self._bounds.image_bytes else None


def _subtract(counts: Counter[str], device: str, number: int) -> None:
    """Count down, and forget a device that has nothing left."""
    counts[device] -= number
    if not counts[device]:
        del counts[device]
