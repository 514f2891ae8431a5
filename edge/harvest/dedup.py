"""Find near-duplicates and label flips by difference hash, with bounded memory."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from bus.newest import put_newest
from edge.harvest.history import MAX_SAMPLES, HarvestedSample
from edge.harvest.shrinking.image import distance
from schemas.policy_rules import HarvestRules

_COMPARED_PER_DEVICE = 512
_MAX_DEVICES = 1024

Similarity = Literal["new", "near-duplicate", "flip"]


@dataclass(slots=True)
class SeenHashes:
    """Hashes of recently harvested samples and of the last photo, per device.

    Bounded: the newest `MAX_SAMPLES` samples of all devices are kept, the newest 512 of a device compared,
    and the last photo is kept for the 1024 devices that sent one last.
    """

    _newest: deque[HarvestedSample] = field(default_factory=deque)
    _by_device: dict[str, deque[HarvestedSample]] = field(default_factory=dict)
    _last_photo: OrderedDict[str, tuple[float, int, str]] = field(default_factory=OrderedDict)

    def compare(self, device: str, dhash: int, label: str, rules: HarvestRules, now: float) -> Similarity:
        """Compare a photo with those of its device within `near_duplicate_s`.

        Args:
            device: That sent it.
            dhash: Its difference hash.
            label: Predicted for it.
            rules: Limits of time and hash distance.
            now: Seconds of a monotonic clock.

        Returns:
            `near-duplicate` if a sample with a near hash has the same label. `flip` if samples with a near
            hash, or the last photo, have other labels only. Otherwise `new`.
        """
        if not rules.near_duplicate_s:
            return "new"
        harvested = set(self._labels_near(device, dhash, rules, now))
        if label in harvested:  # before flips: a scene that flickers is harvested once per label
            return "near-duplicate"
        at, last, last_label = self._last_photo.get(device, (now, dhash, label))
        flipped = last_label != label and _is_near(last, dhash, at, rules, now)
        return "flip" if harvested or flipped else "new"

    def _labels_near(self, device: str, dhash: int, rules: HarvestRules, now: float) -> Iterator[str]:
        # Limited, because every photo is compared: 512 distances take far less time than decoding it.
        samples = reversed(self._by_device.get(device, ()))
        for sample in islice(samples, _COMPARED_PER_DEVICE):
            if _is_near(sample.dhash, dhash, sample.at, rules, now):
                yield sample.label

    def set_last_photo(self, device: str, dhash: int, label: str, now: float) -> None:
        """Store the newest photo of a device, harvested or not, for the next comparison."""
        put_newest(self._last_photo, device, (now, dhash, label), _MAX_DEVICES)

    def add(self, sample: HarvestedSample) -> None:
        """Add a harvested sample; the oldest of all devices is dropped when full."""
        self._newest.append(sample)
        self._by_device.setdefault(sample.device, deque()).append(sample)
        if len(self._newest) > MAX_SAMPLES:
            device = self._newest.popleft().device
            self._by_device[device].popleft()  # the oldest of all is also the oldest of its device
            if not self._by_device[device]:
                del self._by_device[device]

    def forget(self, photo_ids: AbstractSet[str], covers: Callable[[str, str], bool]) -> None:
        """Remove harvested samples by photo id, and the last photos of their devices and of covered ones."""
        devices = {sample.device for sample in self._newest if sample.photo_id in photo_ids}
        devices |= {device for device in self._last_photo if covers(device, "")}
        self._newest = deque(sample for sample in self._newest if sample.photo_id not in photo_ids)
        self._by_device.clear()
        for sample in self._newest:
            self._by_device.setdefault(sample.device, deque()).append(sample)
        for device in devices:
            self._last_photo.pop(device, None)


def _is_near(one: int, other: int, at: float, rules: HarvestRules, now: float) -> bool:
    return now - at <= rules.near_duplicate_s and distance(one, other) <= rules.near_duplicate_bits
