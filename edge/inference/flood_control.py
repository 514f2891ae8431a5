"""Which devices flood, and how long they rest between their calls to the model server for the others' sake.

A call once begun slows down the one beside it, so taking turns is not enough: a device whose photos give way
because it sends more than its share gets a quarter of the calls' time while others are about, else all of it.
Decisions without I/O; bounded memory.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field

FLOODING_S = 5.0
"""How long a device counts as flooding after a photo of it gave way."""
ABOUT_S = 30.0
"""How long a device counts as about after a photo of it came."""
RESTS = 3.0
"""How many times as long as its call took a flooding device rests."""
LONGEST_REST_S = 1.0
"""A call that waits for a model server that is away takes as long as that; nobody rests for it."""
_DEVICES = 1024


@dataclass(slots=True)
class Throttle:
    """When photos of each device last gave way, or else last came; times in seconds of a monotonic clock."""

    _gave_way: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _came: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def came(self, device: str, now: float) -> None:
        """Note that a photo found room."""
        if not self.is_flooding(device, now):
            _note(self._came, device, now)

    def gave_way(self, device: str, now: float) -> None:
        """Note that a photo found no room, or lost it."""
        self._came.pop(device, None)
        _note(self._gave_way, device, now)

    def is_flooding(self, device: str, now: float) -> bool:
        """Tell whether a photo of the device gave way lately."""
        return now - self._gave_way.get(device, -math.inf) < FLOODING_S

    def rest_s(self, device: str, took_s: float, now: float) -> float:
        """Return how long a device has to rest after a call that took so long."""
        newest = next(reversed(self._came.values()), -math.inf)
        others_are_about = now - newest < ABOUT_S
        if not (others_are_about and self.is_flooding(device, now)):
            return 0.0
        return min(RESTS * took_s, LONGEST_REST_S)


def _note(times: OrderedDict[str, float], device: str, now: float) -> None:
    times[device] = now
    times.move_to_end(device)
    if len(times) > _DEVICES:
        times.popitem(last=False)
