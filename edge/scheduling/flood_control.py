"""Detect devices that exceed their share and throttle their calls to the model server.

Round-robin alone is not enough, because concurrent calls slow each other down. A device whose photos are
shed gets a quarter of the time for its calls while other devices are active. Decisions without I/O; bounded
memory.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from bus.newest import put_newest

FLOODING_S = 5.0
"""How long a device counts as flooding after one of its photos was shed."""
ACTIVE_S = 30.0
"""How long a device counts as active after one of its photos was admitted."""
PAUSE_PER_CALL = 3.0
"""Length of a pause, as a multiple of the call before it."""
MAX_PAUSE_S = 1.0
"""Limit of a pause: a call that waits for an unreachable model server takes arbitrarily long."""
_MAX_DEVICES = 1024


@dataclass(slots=True)
class Throttle:
    """When photos of each device were last shed or admitted; times in seconds of a monotonic clock.

    Bounded: the 1024 devices with the newest events of each kind.
    """

    _shed_at: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _admitted_at: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def photo_admitted(self, device: str, now: float) -> None:
        """Note that a photo of the device was admitted."""
        # A flooding device is not active in this sense: two that flood would pause for each other, and the
        # model server would be idle.
        if not self.is_flooding(device, now):
            put_newest(self._admitted_at, device, now, _MAX_DEVICES)

    def photo_shed(self, device: str, now: float) -> None:
        """Note that a photo of the device was shed."""
        self._admitted_at.pop(device, None)
        put_newest(self._shed_at, device, now, _MAX_DEVICES)

    def is_flooding(self, device: str, now: float) -> bool:
        """Return True if a photo of the device was shed within `FLOODING_S`."""
        return now - self._shed_at.get(device, -math.inf) < FLOODING_S

    def pause_s(self, device: str, took_s: float, now: float) -> float:
        """Return how long a device has to pause after a call.

        Args:
            device: Whose photos were in the call.
            took_s: Duration of the call in seconds.
            now: When it ended.
        """
        newest = next(reversed(self._admitted_at.values()), -math.inf)
        others_active = now - newest < ACTIVE_S
        if not (others_active and self.is_flooding(device, now)):
            return 0.0
        return min(PAUSE_PER_CALL * took_s, MAX_PAUSE_S)
