"""Bounded per-device fair queue of in-flight photos, without I/O.

Devices take turns, in which each may spend the same cost, and live photos go before historical ones. A batch
has photos of like cost.
"""

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection

from edge.scheduling.bounds import Bounds, Shed
from edge.scheduling.cost import CallRoom
from edge.scheduling.device_queues import DeviceQueues
from edge.scheduling.fair_share import device_with_most
from edge.scheduling.flood_control import Throttle
from edge.scheduling.in_flight import InFlightPhoto, PhotoKey
from edge.scheduling.isolation import Isolation
from edge.scheduling.load import Load

_ANSWERED_KEPT = 4096
_PASSED_OVER = 8
"""Batches without a historical photo after which one is made of historical photos alone."""


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
        self._load = Load()
        self._live = DeviceQueues()
        self._historical = DeviceQueues()
        self._busy_since: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self._throttle = Throttle()
        self._isolation = Isolation()
        self._changed = asyncio.Event()
        self._alone_changed = asyncio.Event()
        self._batch_ended = asyncio.Event()
        self._passed_over = 0
        self._answered: OrderedDict[PhotoKey, None] = OrderedDict()
        self._expensive: set[str] = set()

    def __len__(self) -> int:
        """Return the number of photos in flight."""
        return len(self._in_flight)

    def __contains__(self, entry: InFlightPhoto) -> bool:
        return self._in_flight.get(entry.key) is entry

    @property
    def image_bytes(self) -> int:
        """Bytes of the images in flight."""
        return self._load.image_bytes.total()

    def find(self, entry: InFlightPhoto) -> InFlightPhoto | None:
        """Return the photo in flight with the same device and id; it may be another picture."""
        return self._in_flight.get(entry.key)

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
        # A repetition of an answered photo is answered from the log at once. It must not push a new one out:
        # a sender that repeats while it waits has its whole window in flight.
        count, repeated = self._load.counts[device], self._load.repeated[device]
        entry.repeated = entry.key in self._answered and repeated < self._bounds.per_device
        if not entry.repeated and count - repeated >= self._bounds.per_device:
            reason = f"{device} has {count} photos in flight, the limit for one device"
            self._throttle.photo_shed(device, self._clock())
            return [Shed(entry, f"{reason}: send it again later")]
        self._in_flight[entry.key] = entry
        self._load.add(entry)
        self._throttle.photo_admitted(device, self._clock())
        shed = []
        while (excess := self._excess()) is not None:
            victim = self._choose_victim(entry, excess)
            del self._in_flight[victim.key]
            self._load.remove(victim)
            self._throttle.photo_shed(victim.photo.device, self._clock())
            reason = f"{victim.photo.device} has the most photos in flight: send it again later"
            shed.append(Shed(victim, reason))
        return shed

    def enqueue(self, entry: InFlightPhoto) -> None:
        """Let an admitted photo wait for a batch."""
        (self._historical if entry.photo.historical else self._live).append(entry)
        if entry.photo.device in self._isolation.devices:
            self._alone_changed.set()
        else:
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
        self._expensive.update([entry.photo.device for entry in batch if entry.is_expensive])
        return batch

    def batch_done(self, batch: list[InFlightPhoto], suspects: Collection[InFlightPhoto] = ()) -> None:
        """Let the devices of a batch be in another one, those that flood after a pause.

        Args:
            batch: As `next_batch` returned it.
            suspects: Photos of it that got no answer although the model server works; they are tried alone.
        """
        now = self._clock()
        slow = batch[0].slow  # of the call, so the same for all
        for device in {entry.photo.device for entry in batch}:
            if slow:  # the next photo alone shows whose time it was
                self.isolate(device)
            elif not suspects:
                self._isolation.answered(device, now)
            self.end_expensive(device)
            took_s = now - self._busy_since.pop(device)
            if pause_s := self._throttle.pause_s(device, took_s, now):
                self._paused_until[device] = now + pause_s
        for entry in reversed(list(suspects)):
            self._try_alone(entry)
        self._changed.set()
        self._batch_ended.set()

    async def idle(self) -> None:
        """Wait until no photo waits for a batch or is in one. Safe to cancel."""
        while self._busy_since or self._live.queues or self._historical.queues:
            self._batch_ended.clear()
            await self._batch_ended.wait()

    def isolate(self, device: str, *, failed: bool = False) -> None:
        """Take photos of a device out of the batches; `failed` if one failed alone, or was slow."""
        if failed:
            self._isolation.failed(device, self._clock())
        else:
            self._isolation.isolate(device)
        self._alone_changed.set()  # it may have photos that wait

    async def next_alone(self, is_crowded: Callable[[], bool]) -> InFlightPhoto:
        """Wait for a photo of an isolated device; no second one of it until `alone_done`. Safe to cancel.

        Args:
            is_crowded: Whether only the least suspected devices may be tried now; call `wake` when it
                changes.
        """
        while True:
            waiting = [*self._may_begin(self._live), *self._may_begin(self._historical)]
            device = self._isolation.next_device(waiting, self._clock(), crowded=is_crowded())
            if device is not None:
                self._isolation.begin(device)
                queues = self._live if device in self._may_begin(self._live) else self._historical
                entry = queues.take_from(device)
                if entry.is_expensive:
                    self._expensive.add(device)
                return entry
            self._alone_changed.clear()
            await self._alone_changed.wait()

    def retry_alone(self, entry: InFlightPhoto) -> None:
        """Let a photo that got no answer alone wait for its next attempt."""
        self._try_alone(entry)

    def alone_done(self, device: str, *, answered: bool) -> None:
        """Let the device have its turn again, because the work for its photo has ended."""
        self._isolation.end(device)
        self.end_expensive(device)
        if answered:
            self._isolation.answered(device, self._clock())
        self._changed.set()  # it may be back in the batches
        self._alone_changed.set()

    def end_expensive(self, device: str) -> None:
        """Let another expensive photo begin, if one of this device was being decoded."""
        if device in self._expensive:
            self._expensive.remove(device)
            self._changed.set()
            self._alone_changed.set()

    def _may_begin(self, queues: DeviceQueues) -> list[str]:
        """Return the devices whose next photo is not expensive, or may be decoded now."""
        free = self._may_begin_expensive()
        return [device for device, one in queues.queues.items() if free or not one[0].is_expensive]

    def wake(self) -> None:
        """Look again for a photo that may be tried."""
        self._alone_changed.set()

    def _try_alone(self, entry: InFlightPhoto) -> None:
        self._isolation.isolate(entry.photo.device)
        (self._historical if entry.photo.historical else self._live).append_left(entry)
        self._alone_changed.set()

    def dequeue_expired(self, now_ms: int) -> list[InFlightPhoto]:
        """Return expired photos that waited for a batch; they stay in flight until `remove`."""
        expired = []
        for queues in (self._live, self._historical):
            expired += (found := [entry for entry in queues if entry.is_expired(now_ms)])
            for entry in found:
                queues.remove(entry)
        return expired

    def release_share(self, entry: InFlightPhoto) -> None:
        """Stop counting a photo against its device's share, because its answer is being published."""
        # Its sender may have the answer, and send the next photo, before the broker confirms it to us. That
        # photo must not be shed, or a sender whose window is `per_device` would be deferred again and again.
        self._load.release_share(entry)

    def remove(self, entry: InFlightPhoto) -> None:
        """Remove a photo that was answered or shed; does nothing for one that was never admitted."""
        if self._in_flight.get(entry.key) is not entry:
            return
        self._answered[entry.key] = None
        if len(self._answered) > _ANSWERED_KEPT:
            self._answered.popitem(last=False)
        del self._in_flight[entry.key]
        self._load.remove(entry)

    def _take_batch(self, limit: int, per_device: int) -> list[InFlightPhoto]:
        if not self._live.queues and not self._historical.queues:
            return []  # as after each batch
        now = self._clock()
        self._paused_until = {device: until for device, until in self._paused_until.items() if until > now}
        excluded = self._busy_since.keys() | self._paused_until.keys() | self._isolation.devices.keys()
        room = CallRoom(expensive=self._may_begin_expensive())
        # One place stays free for a historical photo, or a busy edge would never get through its backlog.
        historical = any(device not in excluded for device in self._historical.queues)
        if historical and self._passed_over >= _PASSED_OVER:  # none was of like cost
            batch = []
        else:
            batch = self._live.take(limit - 1 if historical else limit, per_device, excluded, room)
        late = self._historical.take(1 if batch else limit, per_device, excluded, room)
        if not batch and not late:  # the historical one must wait for a decoder; its turn is not lost
            return self._live.take(limit, per_device, excluded, room)
        self._passed_over = self._passed_over + 1 if historical and batch and not late else 0
        return batch + late

    def _may_begin_expensive(self) -> bool:
        return len(self._expensive) < self._bounds.expensive

    def _next_pause_end_s(self) -> float | None:
        """Return when a pause ends for which a photo may wait, in seconds from now; None if none waits."""
        # Without photos, a pause that has ended would wake the caller again and again.
        if not self._paused_until or not (self._live.queues or self._historical.queues):
            return None
        return min(self._paused_until.values()) - self._clock()

    def _choose_victim(self, newcomer: InFlightPhoto, excess: Counter[str]) -> InFlightPhoto:
        """Return the newest queued photo of the device with most in flight, removed from its queue."""
        # Only queued photos and the newcomer: those in a batch are being classified already.
        devices = {newcomer.photo.device, *self._live.queues, *self._historical.queues}
        largest = device_with_most({device: excess[device] for device in devices}, newcomer.photo.device)
        if largest == newcomer.photo.device:
            return newcomer
        queues = self._historical if largest in self._historical.queues else self._live
        victim = queues.queues[largest][-1]
        queues.remove(victim)
        return victim

    def _excess(self) -> Counter[str] | None:
        """Return each device's part of the quantity that exceeds its bound, or None."""
        if len(self._in_flight) > self._bounds.photos:
            return self._load.counts
        return self._load.image_bytes if self.image_bytes > self._bounds.image_bytes else None
