"""Slow down guessing of passwords: after some failures, a name and an address have to wait."""

import time
from collections import OrderedDict
from collections.abc import Callable

from bus.newest import put_newest

FREE_ATTEMPTS = 5
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0
_FORGET_S = 3600.0
_MAX_KEYS = 4096


class LoginBackoff:
    """Failures by key. Bounded: the key that failed longest ago is forgotten first.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Return the seconds until any of these may try again; 0 if they may now."""
        return max(self._wait_s(key) for key in keys)

    def failed(self, *keys: str) -> None:
        """Count a failure of each key."""
        for key in keys:
            count, at = self._failures.get(key, (0, 0.0))
            count = 1 if self._clock() - at > _FORGET_S else count + 1
            put_newest(self._failures, key, (count, self._clock()), _MAX_KEYS)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures of each key."""
        for key in keys:
            self._failures.pop(key, None)

    def _wait_s(self, key: str) -> float:
        count, at = self._failures.get(key, (0, 0.0))
        if count < FREE_ATTEMPTS:
            return 0.0
        # The exponent is bounded: 2.0 ** 1024 overflows.
        delay = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(count - FREE_ATTEMPTS, 16))
        return max(0.0, at + delay - self._clock())
