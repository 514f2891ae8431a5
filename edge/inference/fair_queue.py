"""Bounded per-device fair queue of in-flight photos, without I/O.

Devices take turns, and live photos go before historical ones.
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
from edge.inference.result_log import PhotoKey
from edge.inference.validation import is_expired
from schemas.messages import Photo


@dataclass(slots=True, eq=False)
class InFlightPhoto:
    """A photo that was received and is not answered yet.

    Args:
        photo: As far as its payload could be read; the image is not decoded.
        ack: Acknowledges the newest delivery to the broker.
        arrived_at: Of the first delivery, seconds of the monotonic clock.
        deferral_sent: Whether its sender got a `deferred` result.
        holds_share: Whether it counts against `Bounds.per_device`.
    """

    photo: Photo
    ack: Callable[[], None]
    arrived_at: float
    deferral_sent: bool = False
    holds_share: bool = False

    @property
    def key(self) -> PhotoKey:
        """Device and photo id."""
        return self.photo.device, self.photo.photo_id


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of what may be in flight: photos of one device, photos, and bytes of their images."""

    per_device: int
    photos: int
    image_bytes: int


class Shed(NamedTuple):
    """A photo that exceeds a bound, and the reason for its sender."""

    entry: InFlightPhoto
    reason: str


@dataclass(slots=True)
class _DeviceQueues:
    """A queue per device in round-robin order; devices without photos have none."""

    queues: OrderedDict[str, deque[InFlightPhoto]] = field(default_factory=OrderedDict)

    def __iter__(self) -> Iterator[InFlightPhoto]:
        return chain.from_iterable(self.queues.values())

    def append(self, entry: InFlightPhoto) -> None:
        self.queues.setdefault(entry.photo.device, deque()).append(entry)

    def take(self, limit: int, per_device: int, excluded: Container[str]) -> list[InFlightPhoto]:
        """Take photos in rounds of one per device, up to `per_device` rounds."""
        taken: list[InFlightPhoto] = []
        # A copy of the keys: the loop reorders and removes devices.
        for device in [device for device in self.queues if device not in excluded] * per_device:
            if len(taken) < limit and device in self.queues:
                taken.append(self.queues[device].popleft())
                self.queues.move_to_end(device)  # a batch that is full continues with the next device
                self._drop_if_empty(device)
        return taken

    def remove(self, entry: InFlightPhoto) -> None:
        self.queues[entry.photo.device].remove(entry)
        self._drop_if_empty(entry.photo.device)

    def _drop_if_empty(self, device: str) -> None:
        if not self.queues[device]:
            del self.queues[device]


class FairQueue:
    """In-flight photos and the order of their classification.

    Bounded: a photo beyond the share of its device is shed; if all devices together exceed a bound, the
    newest photo of the device with most in flight is. Nothing waits for room. A device that floods pauses
    between its batches while others are active.

    Args:
        bounds: Limits of what may be in flight.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._in_flight: dict[PhotoKey, InFlightPhoto] = {}
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._live = _DeviceQueues()
        self._historical = _DeviceQueues()
        self._busy_since: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self._throttle = Throttle()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of photos in flight."""
        return len(self._in_flight)

    def __contains__(self, entry: InFlightPhoto) -> bool:
        return self._in_flight.get(entry.key) is entry

    @property
    def image_bytes(self) -> int:
        """Bytes of the images in flight."""
        return self._bytes.total()

    def is_redelivery(self, entry: InFlightPhoto) -> bool:
        """Return True for a redelivery of an in-flight photo; its ack replaces the older one."""
        first = self._in_flight.get(entry.key)
        if first is None:
            return False
        first.ack()  # the broker still holds the newest delivery, so a crash loses nothing
        first.ack = entry.ack
        return True

    def admit(self, entry: InFlightPhoto) -> list[Shed]:
        """Admit a photo and return those shed for it; the photo itself may be among them."""
        device = entry.photo.device
        if self._counts[device] >= self._bounds.per_device:
            reason = f"{device} has {self._counts[device]} photos in flight, the limit for one device"
            self._throttle.photo_shed(device, self._clock())
            return [Shed(entry, f"{reason}: send it again later")]
        self._in_flight[entry.key] = entry
        self._count(entry)
        self._throttle.photo_admitted(device, self._clock())
        shed = []
        while (excess := self._excess()) is not None:
            victim = self._choose_victim(entry, excess)
            self.remove(victim)
            self._throttle.photo_shed(victim.photo.device, self._clock())
            reason = f"{victim.photo.device} has the most photos in flight: send it again later"
            shed.append(Shed(victim, reason))
        return shed

    def enqueue(self, entry: InFlightPhoto) -> None:
        """Let an admitted photo wait for a batch."""
        (self._historical if entry.photo.historical else self._live).append(entry)
        self._changed.set()

    def queued(self) -> list[InFlightPhoto]:
        """Return the photos that wait for a batch."""
        return [*self._live, *self._historical]

    async def next_batch(self, limit: int, per_device: int) -> list[InFlightPhoto]:
        """Wait for a photo and return a batch; its devices are in no other batch until `batch_done`.

        While live photos wait, each batch contains one historical photo. Safe to cancel.

        Args:
            limit: Photos in the batch, 2 or more.
            per_device: Photos of one device among them.
        """
        while not (batch := self._take_batch(limit, per_device)):
            # No await since the check, so nothing can have been enqueued in between.
            self._changed.clear()
            with contextlib.suppress(TimeoutError):  # a pause is over
                async with asyncio.timeout(self._next_pause_end_s()):
                    await self._changed.wait()
        self._busy_since.update((entry.photo.device, self._clock()) for entry in batch)
        return batch

    def batch_done(self, batch: list[InFlightPhoto]) -> None:
        """Let the devices of a batch be in another one, those that flood after a pause."""
        now = self._clock()
        for device in {entry.photo.device for entry in batch}:
            took_s = now - self._busy_since.pop(device)
            if pause_s := self._throttle.pause_s(device, took_s, now):
                self._paused_until[device] = now + pause_s
        self._changed.set()

    def dequeue_expired(self, now_ms: int) -> list[InFlightPhoto]:
        """Return expired photos that waited for a batch; they stay in flight until `remove`."""
        expired = []
        for queues in (self._live, self._historical):
            expired += (found := [entry for entry in queues if is_expired(entry.photo, now_ms)])
            for entry in found:
                queues.remove(entry)
        return expired

    def release_share(self, entry: InFlightPhoto) -> None:
        """Stop counting a photo against its device's share, because its answer is being published."""
        # Its sender may have the answer, and send the next photo, before the broker confirms it to us. That
        # photo must not be shed, or a sender whose window is `per_device` would be deferred again and again.
        if not entry.holds_share:
            return
        entry.holds_share = False
        _subtract(self._counts, entry.photo.device, 1)

    def remove(self, entry: InFlightPhoto) -> None:
        """Remove a photo that was answered or shed."""
        del self._in_flight[entry.key]
        self.release_share(entry)
        _subtract(self._bytes, entry.photo.device, len(entry.photo.image))

    def _take_batch(self, limit: int, per_device: int) -> list[InFlightPhoto]:
        now = self._clock()
        self._paused_until = {device: until for device, until in self._paused_until.items() if until > now}
        excluded = self._busy_since.keys() | self._paused_until
        # One place stays free for a historical photo, or a busy edge would never get through its backlog.
        historical = any(device not in excluded for device in self._historical.queues)
        batch = self._live.take(limit - 1 if historical else limit, per_device, excluded)
        return batch + self._historical.take(1 if batch else limit, per_device, excluded)

    def _next_pause_end_s(self) -> float | None:
        return min(self._paused_until.values()) - self._clock() if self._paused_until else None

    def _choose_victim(self, newcomer: InFlightPhoto, excess: Counter[str]) -> InFlightPhoto:
        """Return the newest queued photo of the device with most in flight, removed from its queue."""
        # Only queued photos and the newcomer: those in a batch are being classified already.
        devices = {newcomer.photo.device, *self._live.queues, *self._historical.queues}
        # At a tie the newcomer is shed: a photo that waits already should not be sent again.
        largest = max(devices, key=lambda device: (excess[device], device == newcomer.photo.device))
        if largest == newcomer.photo.device:
            return newcomer
        queues = self._historical if largest in self._historical.queues else self._live
        victim = queues.queues[largest][-1]
        queues.remove(victim)
        return victim

    def _count(self, entry: InFlightPhoto) -> None:
        entry.holds_share = True
        self._counts[entry.photo.device] += 1
        self._bytes[entry.photo.device] += len(entry.photo.image)

    def _excess(self) -> Counter[str] | None:
        """Return each device's part of the quantity that exceeds its bound, or None."""
        if len(self._in_flight) > self._bounds.photos:
            return self._counts
        return self._bytes if self.image_bytes > self._bounds.image_bytes else None


def _subtract(counts: Counter[str], device: str, number: int) -> None:
    counts[device] -= number
    if not counts[device]:  # a Counter keeps zeros: without this it would grow with every device name
        del counts[device]
