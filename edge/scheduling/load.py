"""Count what is in flight, by device."""

from collections import Counter
from dataclasses import dataclass, field

from edge.scheduling.in_flight import InFlightPhoto


@dataclass(slots=True)
class Load:
    """Photos in flight and bytes of their images, by device. Devices without any are not kept."""

    counts: Counter[str] = field(default_factory=Counter)
    image_bytes: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    """The part of `counts` that was answered before."""

    def add(self, entry: InFlightPhoto) -> None:
        """Count a photo."""
        entry.holds_share = True
        self.counts[entry.photo.device] += 1
        if entry.repeated:
            self.repeated[entry.photo.device] += 1
        self.image_bytes[entry.photo.device] += len(entry.photo.image)

    def release_share(self, entry: InFlightPhoto) -> None:
        """Count a photo no longer against the share of its device, only its bytes."""
        if not entry.holds_share:
            return
        entry.holds_share = False
        _subtract(self.counts, entry.photo.device, 1)
        if entry.repeated:
            _subtract(self.repeated, entry.photo.device, 1)

    def remove(self, entry: InFlightPhoto) -> None:
        """Count a photo no longer."""
        self.release_share(entry)
        _subtract(self.image_bytes, entry.photo.device, len(entry.photo.image))


def _subtract(counts: Counter[str], device: str, number: int) -> None:
    counts[device] -= number
    if not counts[device]:  # a Counter keeps zeros: without this it would grow with every device name
        del counts[device]
