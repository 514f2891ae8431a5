"""Check caps and quotas against what was harvested in the last minute, hour and day."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from edge.harvest.history import HarvestedSample
from schemas.lanes import SCORED_LANES
from schemas.messages import Caps, HarvestRules

_LENGTHS_S = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(slots=True)
class Budget:
    """Samples counted against caps and quotas, in sliding windows on a monotonic clock.

    Bounded by the cap per day. Restored from disk at start-up; if the wall clock was set forward since, too
    few samples may be counted.
    """

    _windows: dict[str, "_Window"] = field(
        default_factory=lambda: {name: _Window(length_s) for name, length_s in _LENGTHS_S.items()}
    )
    _by_class: Counter[tuple[str, str]] = field(default_factory=Counter)
    _by_id: dict[str, HarvestedSample] = field(default_factory=dict)

    def refusal(self, lane: str, label: str, size_bytes: int, rules: HarvestRules, now: float) -> str | None:
        """Return the limit that one more sample would exceed, or None.

        Returns:
            `quota`, or a cap such as `cap-per-hour` or `cap-bytes-per-hour`. Quotas apply to the lanes that
            are chosen by scores, caps to all.
        """
        self._expire(now)
        quota = rules.quotas.get(label, rules.quota_per_day)
        if lane in SCORED_LANES and self._by_class[lane, label] + 1 > quota:
            return "quota"
        return self._exceeded_cap(size_bytes, rules.caps)

    def exhausted_cap(self, caps: Caps, now: float) -> str | None:
        """Return a cap that any further sample would exceed, or None."""
        self._expire(now)
        return self._exceeded_cap(1, caps)  # the smallest image: none is empty

    def _exceeded_cap(self, size_bytes: int, caps: Caps) -> str | None:
        for name, (count, total_bytes) in _limits(caps).items():
            window = self._windows[name]
            if len(window.samples) + 1 > count:
                return f"cap-per-{name}"
            if window.total_bytes + size_bytes > total_bytes:
                return f"cap-bytes-per-{name}"
        return None

    def spend(self, sample: HarvestedSample) -> None:
        """Count a sample."""
        for window in self._windows.values():
            window.add(sample)
        self._by_class[sample.lane, sample.label] += 1
        self._by_id[sample.photo_id] = sample

    def refund(self, photo_id: str) -> None:
        """Stop counting the newest sample of a photo; does nothing the second time."""
        if (sample := self._by_id.get(photo_id)) is not None:
            for window in self._windows.values():
                window.remove(sample)
            self._uncount(sample)

    def _expire(self, now: float) -> None:
        for name, window in self._windows.items():
            while (sample := window.oldest_expired(now)) is not None:
                window.remove(sample)
                if name == "day":  # the longest window: after it nothing refers to the sample
                    self._uncount(sample)

    def _uncount(self, sample: HarvestedSample) -> None:
        key = sample.lane, sample.label
        self._by_class[key] -= 1
        if not self._by_class[key]:
            del self._by_class[key]
        if self._by_id.get(sample.photo_id) is sample:  # a newer sample of the photo may have replaced it
            del self._by_id[sample.photo_id]


@dataclass(slots=True)
class _Window:
    """Samples of the last `length_s` seconds, the oldest first."""

    length_s: float
    # A dict as an ordered set: a refund removes from the middle, which a deque does in linear time.
    samples: OrderedDict[HarvestedSample, None] = field(default_factory=OrderedDict)
    total_bytes: int = 0

    def oldest_expired(self, now: float) -> HarvestedSample | None:
        """Return the oldest sample if it is older than the window."""
        oldest = next(iter(self.samples), None)
        return oldest if oldest is not None and now - oldest.at >= self.length_s else None

    def add(self, sample: HarvestedSample) -> None:
        self.samples[sample] = None
        self.total_bytes += sample.size_bytes

    def remove(self, sample: HarvestedSample) -> None:
        """Remove a sample, if it has not expired or been refunded before."""
        if sample in self.samples:
            del self.samples[sample]
            self.total_bytes -= sample.size_bytes


def _limits(caps: Caps) -> dict[str, tuple[int, int]]:
    return {
        "minute": (caps.per_minute, caps.bytes_per_minute),
        "hour": (caps.per_hour, caps.bytes_per_hour),
        "day": (caps.per_day, caps.bytes_per_day),
    }
