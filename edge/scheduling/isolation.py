"""Decide which devices have their photos classified alone, without I/O.

A photo can occupy or stop a model server. When a batch gets no answer although the server works, each device
in it is isolated: its photos are classified one by one, apart from the batches. A device returns to the
batches after one answer alone; after a photo that failed alone it needs more, after each further one twice as
many.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from bus.newest import put_newest

ISOLATED_S = 600.0
"""After this time without a photo that failed alone, the device returns and its failures are forgotten."""
FIRST_ANSWERS = 8
"""Answers alone after the first photo that failed alone, before the device returns to the batches."""
_MAX_DEVICES = 1024
_MOST_DOUBLINGS = 7


@dataclass(slots=True)
class Failures:
    """Photos of a device that failed alone.

    Args:
        count: How many.
        at: When the last one did.
    """

    count: int
    at: float


@dataclass(slots=True)
class Isolation:
    """Isolated devices; times in seconds of a monotonic clock.

    Bounded: the 1024 devices isolated last, the 1024 answered last, and the 1024 that failed last.
    """

    devices: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The isolated devices, with the number of answers alone before they return to the batches."""
    _failures: OrderedDict[str, Failures] = field(default_factory=OrderedDict)
    _answered: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _busy: set[str] = field(default_factory=set)

    def __contains__(self, device: str) -> bool:
        return device in self.devices

    def isolate(self, device: str) -> None:
        """Classify photos of this device alone until one is answered."""
        put_newest(self.devices, device, self.devices.get(device, 1), _MAX_DEVICES)

    def failed(self, device: str, now: float) -> None:
        """Note that a photo of the device failed alone."""
        count = self._failures[device].count + 1 if self._failed_lately(device, now) else 1
        put_newest(self._failures, device, Failures(count, now), _MAX_DEVICES)
        put_newest(self.devices, device, FIRST_ANSWERS << min(count - 1, _MOST_DOUBLINGS), _MAX_DEVICES)

    def answered(self, device: str, now: float) -> None:
        """Note that a photo of the device was answered, alone if it is isolated."""
        put_newest(self._answered, device, None, _MAX_DEVICES)
        if device not in self.devices:
            return
        self.devices[device] -= 1
        if self.devices[device] <= 0 or not self._failed_lately(device, now):
            del self.devices[device]

    def begin(self, device: str) -> None:
        """Note that a photo of the device is being tried: no second one until `end`."""
        self._busy.add(device)

    def end(self, device: str) -> None:
        """Note that the work for the photo has really ended."""
        self._busy.discard(device)

    def next_device(self, waiting: list[str], now: float, *, crowded: bool) -> str | None:
        """Return the isolated device whose photo is tried next, or None.

        Devices that were probably in a failed batch by chance come first: those without a photo that failed
        alone, and among them those with an answered photo.

        Args:
            waiting: Devices with queued photos, in the order of their turns.
            now: The time.
            crowded: Whether too many calls are unfinished to try other devices than those with an answered
                photo and without a failed one.
        """
        ready = [device for device in waiting if device in self and device not in self._busy]
        ranks = {device: self._rank(device, now) for device in ready}
        best = min(ready, key=lambda device: ranks[device], default=None)
        return None if best is None or (crowded and ranks[best] > 0) else best

    def _rank(self, device: str, now: float) -> int:
        if self._failed_lately(device, now):
            return 2
        return 0 if device in self._answered else 1

    def _failed_lately(self, device: str, now: float) -> bool:
        return device in self._failures and now - self._failures[device].at < ISOLATED_S
