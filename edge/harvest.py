"""Which photos are worth learning from: plain functions and bounded memory, no I/O.

In this order: near-duplicate, lane, caps. Each refusal has a name that becomes a counter.
"""

import io
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from schemas.messages import Caps, HarvestRules

SHORT_SIDE_PX = 320
_JPEG_QUALITY = 90
_HASH_COLUMNS = 9
_HASH_ROWS = 8
_VIEWS_PER_DEVICE = 512
_DEVICES = 1024
_LENGTHS_S = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0}

# The header was checked against the edge's own limit; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


class Decision(NamedTuple):
    """Either the lane to harvest the photo in, or the reason why not."""

    lane: str | None
    refused: str | None = None


def dhash(image: bytes) -> int:
    """Return the 64-bit difference hash of an encoded image.

    Each bit tells whether one of 9 x 8 grey cells is brighter than its right neighbour, so two pictures of
    one view differ in few bits whatever their size and brightness.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.

    Source: D. Hackerfactor (N. Krawetz), "Kind of Like That", 2013.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        picture.draft("L", (8 * _HASH_COLUMNS, 8 * _HASH_ROWS))  # a JPEG decodes at an eighth for this
        cells = picture.convert("L").resize((_HASH_COLUMNS, _HASH_ROWS), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(_HASH_ROWS):
        for column in range(_HASH_COLUMNS - 1):
            at = row * _HASH_COLUMNS + column
            bits = bits << 1 | (cells[at] > cells[at + 1])
    return bits


def distance(one: int, other: int) -> int:
    """Return in how many of 64 bits two hashes differ (Hamming)."""
    return (one ^ other).bit_count()


class Shrunk(NamedTuple):
    """An image at training size: encoded bytes, and width and height in pixels."""

    image: bytes
    width: int
    height: int


def shrink(image: bytes, short_side_px: int = SHORT_SIDE_PX) -> Shrunk:
    """Return a photo with its short side at most that long; one that is small enough stays byte for byte.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode it.
    """
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        width, height = picture.size
        if min(width, height) <= short_side_px:
            return Shrunk(image, width, height)
        scale = short_side_px / min(width, height)
        size = round(width * scale), round(height * scale)
        picture.draft("RGB", size)
        small = picture.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_JPEG_QUALITY)
    return Shrunk(out.getvalue(), *size)


def lane(confidence: float, rules: HarvestRules) -> Decision:
    """Return the lane by confidence alone; what lies between the two thresholds teaches little."""
    if confidence >= rules.auto_confidence:
        return Decision("auto")
    if confidence < rules.hard_confidence:
        return Decision("hard")
    return Decision(None, "between-thresholds")


@dataclass(slots=True)
class Views:
    """What each device was harvested for lately.

    Bounded: the oldest views of a device are forgotten first, and the device that was quiet longest.
    """

    _devices: OrderedDict[str, deque[tuple[float, int]]] = field(default_factory=OrderedDict)

    def seen(self, device: str, view: int, rules: HarvestRules, now: float) -> bool:
        """Tell whether the device showed nearly this view within the time that the rules say."""
        views = self._devices.get(device)
        if views is None:
            return False
        while views and now - views[0][0] > rules.near_duplicate_s:
            views.popleft()
        return any(distance(view, other) <= rules.near_duplicate_bits for _, other in views)

    def remember(self, device: str, view: int, now: float) -> None:
        """Keep a view that was harvested."""
        views = self._devices.setdefault(device, deque(maxlen=_VIEWS_PER_DEVICE))
        views.append((now, view))
        self._devices.move_to_end(device)
        if len(self._devices) > _DEVICES:
            self._devices.popitem(last=False)


@dataclass(slots=True)
class Spent:
    """What was harvested in the last minute, hour and day: sliding, on a clock that never jumps."""

    _windows: dict[str, "_Window"] = field(
        default_factory=lambda: {name: _Window(length_s) for name, length_s in _LENGTHS_S.items()}
    )

    def exceeds(self, size_bytes: int, caps: Caps, now: float) -> str | None:
        """Return the cap that one more sample of this size would break: for example `cap-per-hour`."""
        for name, (count, total_bytes) in _limits(caps).items():
            window = self._windows[name]
            window.forget(now)
            if len(window.entries) + 1 > count:
                return f"cap-per-{name}"
            if window.total_bytes + size_bytes > total_bytes:
                return f"cap-bytes-per-{name}"
        return None

    def spend(self, size_bytes: int, now: float) -> None:
        """Count one sample."""
        for window in self._windows.values():
            window.entries.append((now, size_bytes))
            window.total_bytes += size_bytes


@dataclass(slots=True)
class _Window:
    length_s: float
    entries: deque[tuple[float, int]] = field(default_factory=deque)
    total_bytes: int = 0

    def forget(self, now: float) -> None:
        while self.entries and now - self.entries[0][0] >= self.length_s:
            self.total_bytes -= self.entries.popleft()[1]


def _limits(caps: Caps) -> dict[str, tuple[int, int]]:
    return {
        "minute": (caps.per_minute, caps.bytes_per_minute),
        "hour": (caps.per_hour, caps.bytes_per_hour),
        "day": (caps.per_day, caps.bytes_per_day),
    }


@dataclass(slots=True)
class Harvester:
    """The rules in force and what they have to remember."""

    rules: HarvestRules
    views: Views = field(default_factory=Views)
    spent: Spent = field(default_factory=Spent)

    def choose(self, device: str, view: int, confidence: float, now: float) -> Decision:
        """Decide whether a photo is worth harvesting; remembers nothing yet.

        Args:
            device: Whose photo it is.
            view: Its difference hash.
            confidence: Of the model in its label, 0 to 1.
            now: Seconds of a monotonic clock.
        """
        if self.rules.near_duplicate_s and self.views.seen(device, view, self.rules, now):
            return Decision(None, "near-duplicate")
        chosen = lane(confidence, self.rules)
        if chosen.lane is not None and (cap := self.afford(0, now)) is not None:
            return Decision(None, cap)  # before the work of shrinking it
        return chosen

    def afford(self, size_bytes: int, now: float) -> str | None:
        """Return the cap that a sample of this size would break, or None if it may go."""
        return self.spent.exceeds(size_bytes, self.rules.caps, now)

    def took(self, device: str, view: int, size_bytes: int, now: float) -> None:
        """Remember a sample that is on its way."""
        self.views.remember(device, view, now)
        self.spent.spend(size_bytes, now)
