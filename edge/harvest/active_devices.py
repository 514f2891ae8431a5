"""Count the devices that sent photos recently: they share the caps of a node. Bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import takewhile

from bus.newest import put_newest

_MAX_DEVICES = 1024


@dataclass(slots=True)
class ActiveDevices:
    """When each device sent its last photo, seconds of a monotonic clock: the 1024 newest."""

    _seen_at: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def seen(self, device: str, now: float) -> None:
        """Note a photo, harvested or not."""
        put_newest(self._seen_at, device, now, _MAX_DEVICES)

    def count(self, within_s: float, now: float) -> int:
        """Return how many devices sent a photo within some seconds, at least 1."""
        newest_first = reversed(self._seen_at.values())
        return max(1, sum(1 for _ in takewhile(lambda at: now - at < within_s, newest_first)))
