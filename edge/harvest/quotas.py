"""Check caps and quotas against what was harvested in the last minute, hour and day."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace

from edge.harvest.active_devices import ActiveDevices
from edge.harvest.history import HarvestedSample
from schemas.lanes import AUDIT, SCORED_LANES
from schemas.policy_rules import Caps, HarvestRules

_LENGTHS_S = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(slots=True)
class Budget:
    """Samples counted against caps and quotas, in sliding windows on a monotonic clock.

    Bounded by the cap per day. Restored from disk at start-up; if the machine was started again since,
    and its wall clock set forward, too few samples may be counted.
    """

    _windows: dict[str, "_Window"] = field(
        default_factory=lambda: {name: _Window(length_s) for name, length_s in _LENGTHS_S.items()}
    )
    active: ActiveDevices = field(default_factory=ActiveDevices)
    _by_class: Counter[tuple[str, str]] = field(default_factory=Counter)
    _audits: Counter[str] = field(default_factory=Counter)
    """Audits of the last day, by device."""
    _by_id: dict[str, HarvestedSample] = field(default_factory=dict)

    def refusal(
        self,
        lane: str,
        label: str,
        size_bytes: int,
        rules: HarvestRules,
        now: float,
        *,
        device: str | None = None,
    ) -> str | None:
        """Return the limit that one more sample would exceed, or None.

        Args:
            lane: Of the sample.
            label: Predicted for it.
            size_bytes: Of its image.
            rules: In force.
            now: Seconds of a monotonic clock.
            device: That sent it; None to check the limits of the node alone.

        Returns:
            `quota`, or a cap such as `cap-per-hour` or `cap-bytes-per-hour`, or `device-share-per-hour` for a
            device that has more than its share. Quotas by class apply to the lanes that are chosen by scores,
            `audit-quota` and `audit-quota-per-device` to audits, caps and shares to all.
        """
        self._expire(now)
        quota = rules.quotas.get(label, rules.quota_per_day)
        if lane in SCORED_LANES and self._by_class[lane, label] + 1 > quota:
            return "quota"
        if lane == AUDIT and self._audits.total() + 1 > rules.audits_per_day:
            return "audit-quota"
        if lane == AUDIT and device is not None and self._audits[device] + 1 > rules.audits_per_device:
            return "audit-quota-per-device"
        return self._exceeded(size_bytes, rules.caps, device, now)

    def exhausted_cap(self, caps: Caps, now: float, device: str | None = None) -> str | None:
        """Return a cap or share that any further sample would exceed, or None."""
        self._expire(now)
        return self._exceeded(1, caps, device, now)  # the smallest image: none is empty

    def _exceeded(self, size_bytes: int, caps: Caps, device: str | None, now: float) -> str | None:
        if (cap := self._exceeded_cap(size_bytes, caps)) is not None:
            return cap
        if device is None or device not in self._windows["day"].by_device:
            return None  # the first sample of a device is refused only by a cap of the node
        return self._exceeded_share(size_bytes, caps, device, now)

    def _exceeded_share(self, size_bytes: int, caps: Caps, device: str, now: float) -> str | None:
        """Return the share that a device would exceed in the half of a cap that is shared out equally.

        The first half of a cap is first come, first served, so that idle devices do not hold a busy one back;
        the second half is for devices with less than an equal share.
        """
        for name, (count, total_bytes) in _limits(caps).items():
            window = self._windows[name]
            used, used_bytes = window.by_device.get(device, (0, 0))
            crowded = 2 * (len(window.samples) + 1) > count
            crowded_bytes = 2 * (window.total_bytes + size_bytes) > total_bytes
            if not (used and (crowded or crowded_bytes)):
                continue  # the first sample of a device is never refused here
            devices = self.active.count(window.length_s, now)
            if devices > 1 and (
                (crowded and (used + 1) * devices > count)
                or (crowded_bytes and (used_bytes + size_bytes) * devices > total_bytes)
            ):
                return f"device-share-per-{name}"
        return None

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
        if sample.lane == AUDIT:
            self._audits[sample.device] += 1
        self._by_id[sample.photo_id] = sample

    def correct(self, photo_id: str, size_bytes: int) -> None:
        """Count the newest sample of a photo with another size."""
        if (sample := self._by_id.get(photo_id)) is not None:
            self.refund(photo_id)
            self.spend(replace(sample, size_bytes=size_bytes))

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
        if sample.lane == AUDIT:
            self._audits[sample.device] -= 1
            if not self._audits[sample.device]:
                del self._audits[sample.device]
        if self._by_id.get(sample.photo_id) is sample:  # a newer sample of the photo may have replaced it
            del self._by_id[sample.photo_id]


@dataclass(slots=True)
class _Window:
    """Samples of the last `length_s` seconds, the oldest first."""

    length_s: float
    # A dict as an ordered set: a refund removes from the middle, which a deque does in linear time.
    samples: OrderedDict[HarvestedSample, None] = field(default_factory=OrderedDict)
    total_bytes: int = 0
    by_device: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Number and bytes of the samples of each device that has any."""

    def oldest_expired(self, now: float) -> HarvestedSample | None:
        """Return the oldest sample if it is older than the window."""
        oldest = next(iter(self.samples), None)
        return oldest if oldest is not None and now - oldest.at >= self.length_s else None

    def add(self, sample: HarvestedSample) -> None:
        self.samples[sample] = None
        self.total_bytes += sample.size_bytes
        self._count(sample, 1)

    def remove(self, sample: HarvestedSample) -> None:
        """Remove a sample, if it has not expired or been refunded before."""
        if sample in self.samples:
            del self.samples[sample]
            self.total_bytes -= sample.size_bytes
            self._count(sample, -1)

    def _count(self, sample: HarvestedSample, sign: int) -> None:
        count, size_bytes = self.by_device.get(sample.device, (0, 0))
        self.by_device[sample.device] = count + sign, size_bytes + sign * sample.size_bytes
        if not count + sign:
            del self.by_device[sample.device]


def _limits(caps: Caps) -> dict[str, tuple[int, int]]:
    return {
        "minute": (caps.per_minute, caps.bytes_per_minute),
        "hour": (caps.per_hour, caps.bytes_per_hour),
        "day": (caps.per_day, caps.bytes_per_day),
    }
