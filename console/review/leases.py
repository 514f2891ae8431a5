"""Reserve photos for the person who sees them, for a while: plain methods without I/O."""

import time
from collections.abc import Callable, Iterable

MAX_PER_HOLDER = 200
"""Most photos that one browser has reserved; a further one releases its oldest."""


class Leases:
    """Who sees which photo, in the memory of the one console; all are free again after a restart.

    Bounded by `MAX_PER_HOLDER` and the number of sessions.

    Args:
        duration_s: How long a photo stays reserved, in seconds.
        clock: Seconds, monotonic.
    """

    def __init__(self, duration_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._duration_s = duration_s
        self._clock = clock
        self._leases: dict[str, tuple[str, float]] = {}

    def is_free(self, photo_id: str, holder: str) -> bool:
        """Return whether no other user sees a photo."""
        other, until = self._leases.get(photo_id, (holder, 0.0))
        return other == holder or until <= self._clock()

    def take(self, photo_ids: Iterable[str], holder: str) -> list[str]:
        """Reserve the free ones of some photos, or renew them; return these."""
        taken = [photo_id for photo_id in photo_ids if self.is_free(photo_id, holder)]
        until = self._clock() + self._duration_s
        for photo_id in taken:
            self._leases.pop(photo_id, None)  # to the end: the oldest are first
            self._leases[photo_id] = (holder, until)
        for photo_id in self.held(holder)[:-MAX_PER_HOLDER]:
            del self._leases[photo_id]
        return taken

    def release(self, photo_ids: Iterable[str], holder: str) -> None:
        """Give photos back."""
        for photo_id in photo_ids:
            if self._leases.get(photo_id, ("", 0.0))[0] == holder:
                del self._leases[photo_id]

    def held(self, holder: str) -> list[str]:
        """Return the photos that a holder has reserved, oldest first."""
        self._expire()
        return [photo_id for photo_id, (other, _) in self._leases.items() if other == holder]

    def _expire(self) -> None:
        now = self._clock()
        self._leases = {key: lease for key, lease in self._leases.items() if lease[1] > now}
