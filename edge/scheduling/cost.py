"""Estimate what decoding a photo costs, and decide which photos share a call: plain functions, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.image import ImageFacts

EXPENSIVE_MS = 100.0
"""Cost above which a photo is expensive. A usual JPEG of 12 megapixels is not."""
CHEAP_MS = 4.0
"""Most cost of photos whose hash is computed without a thread. A JPEG of 640 x 480 pixels has 3, and takes
a tenth of that for its hash, as it is decoded at a quarter of its size."""
MAX_CALL_MS = 200.0
"""Most cost of the photos of one call; a single photo may have more."""
QUANTUM_MS = 50.0
"""What each device may spend in a turn, and saves for a photo that costs more."""

_LIKE = 4.0
_FLOOR_MS = 10.0
# Nanoseconds on one core of a server processor, rounded up; a Raspberry Pi takes a few times as long for all.
_JPEG_PIXEL_NS = 4.0
_SCAN_PIXEL_NS = 1.0
_PNG_SAMPLE_NS = 8.0  # with the filter that takes longest; a sender may choose it for every row
_BYTE_NS = 15.0
_RESIZE_NS = 10.0  # of a value between the two passes of scaling to the input of a network
_INPUT_VALUES = 224 * 3  # of a row or column of the usual input
_MS_PER_NS = 1e-6
_BITS = 8
_CMYK_CHANNELS = 4


def decode_ms(facts: ImageFacts, size_bytes: int) -> float:
    """Return about how long decoding and scaling take, in milliseconds of one core.

    Args:
        facts: Of the file.
        size_bytes: Of the file.
    """
    if facts.format == "jpeg":
        pixel_ns = _JPEG_PIXEL_NS + _SCAN_PIXEL_NS * (facts.scans - 1)
        if facts.channels == _CMYK_CHANNELS:  # and its colours are computed outside libjpeg
            pixel_ns *= 2
    else:
        pixel_ns = _PNG_SAMPLE_NS * facts.channels * max(1.0, facts.bit_depth / _BITS)
    return _MS_PER_NS * (facts.pixels * pixel_ns + size_bytes * _BYTE_NS + _elongation(facts) * _RESIZE_NS)


def _elongation(facts: ImageFacts) -> int:
    """Return the values that scaling a picture with one long side has beyond those of its pixels."""
    return max(0, max(facts.width, facts.height) * _INPUT_VALUES - facts.pixels)


def is_expensive(cost_ms: float) -> bool:
    """Return True for a photo of which only few may be decoded at once."""
    return cost_ms > EXPENSIVE_MS


def is_cheap(costs_ms: Sequence[float]) -> bool:
    """Return True if photos of these known costs take less time together than a thread that is woken."""
    return 0 not in costs_ms and sum(costs_ms) <= CHEAP_MS


@dataclass(slots=True)
class CallRoom:
    """What still fits into a call that is being put together: photos of like cost, up to `MAX_CALL_MS`.

    Args:
        expensive: Whether an expensive photo may be decoded now.
    """

    expensive: bool = True
    _first_ms: float | None = None
    _spent_ms: float = 0.0

    def fits(self, cost_ms: float) -> bool:
        """Return True if a photo of this cost may be in the call."""
        if is_expensive(cost_ms) and not self.expensive:
            return False
        if self._first_ms is None:
            return True
        low, high = sorted((max(cost_ms, _FLOOR_MS), max(self._first_ms, _FLOOR_MS)))
        return high <= _LIKE * low and self._spent_ms + cost_ms <= MAX_CALL_MS

    def take(self, cost_ms: float) -> None:
        """Put a photo into the call."""
        self._first_ms = cost_ms if self._first_ms is None else self._first_ms
        self._spent_ms += cost_ms
