"""Estimate how far the clocks of devices are from the edge's, by the arrival of their photos. No I/O.

A device without a battery for its clock may boot in 1970, and one without network time drifts. The time in a
photo is therefore only used as a difference to other times of the same device.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from bus.newest import put_newest
from schemas.messages import Photo

SHOWN_FROM_MS = 30_000
"""Offset from which a clock is worth reporting: photos are up to a few seconds old when they arrive."""
MAX_SHOWN = 32

_PHOTOS = 16
_JUMP_MS = 5000
_AGREE_MS = 2000
_LIVE_MS = 120_000  # a photo that a device agent sends later than a minute is marked `historical`
_LATE_MS = 86_400_000
_MAX_DEVICES = 1024


@dataclass(slots=True)
class _Clock:
    """What the live photos of a device show about its clock.

    Args:
        differences: Arrival minus time of the photo, in milliseconds, of the latest photos.
        taken_ms: Time of the last photo.
        jumped: Whether its difference was a sudden one: the clock was set back, or the photo is late.
    """

    differences: deque[int] = field(default_factory=lambda: deque(maxlen=_PHOTOS))
    taken_ms: int = 0
    jumped: bool = False

    def observe(self, taken_ms: int, difference: int) -> None:
        """Take a photo into account."""
        known = self.differences
        if known and difference - min(known) > _LIVE_MS:
            known.clear()  # no live photo is that late: the device's clock was set back, or ours forward
        elif self.jumped and self._agrees(taken_ms, difference):
            last = known[-1]
            known.clear()
            known.append(last)
        self.jumped = bool(known) and difference - known[-1] > _JUMP_MS
        known.append(difference)
        self.taken_ms = taken_ms

    def _agrees(self, taken_ms: int, difference: int) -> bool:
        """Return True if a photo has the offset of the one before it, after which it was taken.

        Photos that were held up arrive at once: the difference then falls by the time between them.
        """
        apart_ms = taken_ms - self.taken_ms
        return abs(difference - self.differences[-1]) <= min(_AGREE_MS, apart_ms // 2)


@dataclass(slots=True)
class DeviceClocks:
    """Offsets of device clocks: the edge's time minus the device's, in milliseconds.

    The difference between arrival and photo is the offset plus the delay of the photo, so the smallest one of
    the latest 16 live photos is the estimate. It is replaced when two photos in a row agree on a much larger
    one. Bounded: the 1024 devices that sent last.
    """

    _clocks: OrderedDict[str, _Clock] = field(default_factory=OrderedDict)

    def observe(self, photo: Photo, arrived_ms: int) -> None:
        """Take the times of a photo into account.

        Args:
            photo: As it arrived first.
            arrived_ms: By the edge's clock, milliseconds since 1970.
        """
        if photo.taken_at_ms is None or photo.historical:
            return  # a late photo does not show the offset of the clock
        clock = self._clocks.setdefault(photo.device, _Clock())
        clock.observe(photo.taken_at_ms, arrived_ms - photo.taken_at_ms)
        put_newest(self._clocks, photo.device, clock, _MAX_DEVICES)

    def offset_ms(self, photo: Photo, arrived_ms: int) -> int:
        """Return the offset of the clock by which the times in a photo were written."""
        if (clock := self._clocks.get(photo.device)) is not None:
            return min(clock.differences)
        # The first photo of a device is a late one: it may be a day old, but not from another year.
        late_ms = 0 if photo.taken_at_ms is None else arrived_ms - photo.taken_at_ms
        return 0 if 0 <= late_ms <= _LATE_MS else late_ms

    def wrong(self) -> dict[str, float]:
        """Return the offsets that are worth reporting, in seconds, by device; the largest ones."""
        offsets = {device: min(clock.differences) for device, clock in self._clocks.items()}
        wrong = sorted(
            ((device, ms) for device, ms in offsets.items() if abs(ms) >= SHOWN_FROM_MS),
            key=lambda item: -abs(item[1]),
        )
        return {device: ms / 1000 for device, ms in sorted(wrong[:MAX_SHOWN])}


def is_expired(photo: Photo, now_ms: int, offset_ms: int = 0) -> bool:
    """Return True if the sender no longer wants an answer.

    Args:
        photo: The photo.
        now_ms: By the edge's clock, milliseconds since 1970.
        offset_ms: Of the device's clock.
    """
    return photo.expires_at_ms is not None and now_ms - offset_ms > photo.expires_at_ms


def describe(offset_ms: int) -> str:
    """Return an offset in words, for the sender of a photo; empty if it is not worth reporting."""
    if abs(offset_ms) < SHOWN_FROM_MS:
        return ""
    direction = "behind" if offset_ms > 0 else "ahead of"
    return f"this device's clock is {abs(offset_ms) / 1000:.0f} s {direction} the edge's"
