"""What may be in flight at once, and what happens to a photo beyond that."""

from dataclasses import dataclass
from typing import NamedTuple

from edge.scheduling.in_flight import InFlightPhoto


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of what may be in flight.

    Args:
        per_device: Photos of one device.
        photos: Photos.
        image_bytes: Bytes of their images.
        expensive: Expensive photos that are being decoded, so that others always find a free decoder.
    """

    per_device: int
    photos: int
    image_bytes: int
    expensive: int = 1


class Shed(NamedTuple):
    """A photo that exceeds a bound, and the reason for its sender."""

    entry: InFlightPhoto
    reason: str
