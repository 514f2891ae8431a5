"""Counts, latencies and failures in a row of the calls to one version."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

from schemas.messages import VersionStats

CALLS_KEPT = 256
"""Latest calls of a version whose durations are kept."""
CALLS_NEEDED = 20
"""Calls before a percentile is reported; the 95th of fewer calls is the slowest one."""

_FAILURES_TO_OPEN = 3
_SUCCESSES_TO_CLOSE = 10


def percentile(durations: Iterable[float], share: float = 0.95) -> float | None:
    """Return the smallest duration that at least this share does not exceed, None without durations."""
    ordered = sorted(durations)
    return ordered[max(ceil(share * len(ordered)), 1) - 1] if ordered else None


@dataclass(slots=True)
class CallStats:
    """Counts and latencies of one version. Memory is bounded by `CALLS_KEPT`."""

    answered: int = 0
    failed: int = 0
    calls_ms: deque[float] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))

    def record_success(self, photos: int, duration_s: float | None) -> None:
        """Count a call; a duration of None, in seconds, is not part of the latency."""
        self.answered += photos
        if duration_s is not None:
            self.calls_ms.append(duration_s * 1000 / photos)  # per photo: batches differ in size

    def record_failure(self) -> None:
        """Count a failed call."""
        self.failed += 1

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of the time per photo, None for fewer than `CALLS_NEEDED` calls."""
        return percentile(self.calls_ms) if len(self.calls_ms) >= CALLS_NEEDED else None

    def report(self, version: int) -> VersionStats:
        """Return the counts as the Status carries them."""
        return VersionStats(version=version, answered=self.answered, failed=self.failed, p95_ms=self.p95_ms)


class CircuitBreaker:
    """Opens after 3 consecutive failures, closes after 10 consecutive successes.

    While it is open the only calls are those of shadow comparison. They carry one photo each, so ten of them
    can succeed and a whole batch still fail; then three failures open it again.
    """

    def __init__(self) -> None:
        self._streak = 0  # consecutive successes, or failures as a negative number
        self._closed = True

    @property
    def closed(self) -> bool:
        """True if calls are allowed."""
        return self._closed

    def record(self, *, success: bool) -> None:
        """Count a call."""
        self._streak = max(self._streak, 0) + 1 if success else min(self._streak, 0) - 1
        if self._streak <= -_FAILURES_TO_OPEN:
            self._closed = False
        elif self._streak >= _SUCCESSES_TO_CLOSE:
            self._closed = True
