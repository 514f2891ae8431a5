"""Queues of photos per device, which take turns."""

from collections import OrderedDict, deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import chain

from edge.scheduling.cost import QUANTUM_MS, CallRoom
from edge.scheduling.in_flight import InFlightPhoto


@dataclass(slots=True)
class DeviceQueues:
    """A queue per device in round-robin order; devices without photos have none."""

    queues: OrderedDict[str, deque[InFlightPhoto]] = field(default_factory=OrderedDict)
    saved_ms: dict[str, float] = field(default_factory=dict)
    """Savings of devices with photos, from turns that did not pay for their next one."""

    def __iter__(self) -> Iterator[InFlightPhoto]:
        return chain.from_iterable(self.queues.values())

    def append(self, entry: InFlightPhoto) -> None:
        """Let a photo wait behind those of its device."""
        self.queues.setdefault(entry.photo.device, deque()).append(entry)

    def append_left(self, entry: InFlightPhoto) -> None:
        """Let a photo wait before those of its device."""
        self.queues.setdefault(entry.photo.device, deque()).appendleft(entry)

    def take(
        self, limit: int, per_device: int, excluded: Container[str], room: CallRoom | None = None
    ) -> list[InFlightPhoto]:
        """Take photos in rounds of one per device, up to `per_device` rounds, as deficit round robin does.

        A device whose next photo costs more than a turn pays for saves up for it; if no other device can have
        the turn, it does not wait.

        Args:
            limit: Most photos.
            per_device: Most photos of a device.
            excluded: Devices without a turn.
            room: Of the call; photos that do not fit wait.

        Source: M. Shreedhar and G. Varghese, "Efficient Fair Queueing using Deficit Round Robin", 1995.
        """
        room = room or CallRoom()
        # A copy of the keys: the loop reorders and removes devices.
        waiting = [device for device in self.queues if device not in excluded]
        taken: list[InFlightPhoto] = []
        lacking: dict[str, float] = {}
        for device in waiting * per_device:
            if len(taken) == limit:
                break  # the next batch continues with the next device
            if device not in self.queues or not room.fits(cost_ms := self.queues[device][0].cost_ms):
                continue
            has_ms = self.saved_ms.get(device, 0.0) + QUANTUM_MS
            if has_ms >= cost_ms:
                taken.append(self._spend(device, has_ms, room))
            elif device not in lacking:
                lacking[device] = cost_ms - has_ms
                self.saved_ms[device] = has_ms
        if taken or not lacking:
            return taken
        return [self._spend_first(lacking, room)]

    def _spend_first(self, lacking: dict[str, float], room: CallRoom) -> InFlightPhoto:
        """Take the photo that lacks least, as if all had saved until it could be paid for."""
        first = min(lacking, key=lambda device: lacking[device])
        for device in lacking:
            self.saved_ms[device] += lacking[first]
        return self._spend(first, self.saved_ms[first], room)

    def _spend(self, device: str, has_ms: float, room: CallRoom) -> InFlightPhoto:
        entry = self.queues[device][0]
        room.take(entry.cost_ms)
        # Only what is left of savings is kept: cheap photos earn no claim to a costly one later.
        self.saved_ms[device] = has_ms - entry.cost_ms if entry.cost_ms > QUANTUM_MS else 0.0
        return self.take_from(device)

    def take_from(self, device: str) -> InFlightPhoto:
        """Take the next photo of a device, which must have one."""
        entry = self.queues[device].popleft()
        self.queues.move_to_end(device)
        self._drop_if_empty(device)
        return entry

    def remove(self, entry: InFlightPhoto) -> None:
        """Remove a waiting photo."""
        self.queues[entry.photo.device].remove(entry)
        self._drop_if_empty(entry.photo.device)

    def _drop_if_empty(self, device: str) -> None:
        if not self.queues[device]:
            del self.queues[device]
            self.saved_ms.pop(device, None)
