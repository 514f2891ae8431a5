"""Which photos show nearly the same view as one before: difference hashes, and a bounded memory of them."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from edge.harvest.history import KEPT, HarvestedSample
from edge.harvest.image import distance
from schemas.messages import HarvestRules

_VIEWS_PER_DEVICE = 512
_DEVICES = 1024

Nearness = Literal["new", "near", "flipped"]


@dataclass(slots=True)
class SeenHashes:
    """What each device was harvested for lately, and what it showed last.

    Bounded: the newest `KEPT` samples of all devices are remembered, and of a device the newest 512 are
    compared; what was shown last, of the 1024 devices that showed something last.
    """

    _newest: deque[HarvestedSample] = field(default_factory=deque)
    _by_device: dict[str, deque[HarvestedSample]] = field(default_factory=dict)
    _shown: OrderedDict[str, tuple[float, int, str]] = field(default_factory=OrderedDict)

    def compare(self, device: str, view: int, label: str, rules: HarvestRules, now: float) -> Nearness:
        """Compare a view with what the device showed within the time that the rules say.

        Returns:
            `near` if a sample of nearly this view has the same label; `flipped` if the model gave nearly this
            view another label, and it was not harvested with this one: so each label of a view is harvested
            once, however it flickers. Otherwise `new`.
        """
        if not rules.near_duplicate_s:
            return "new"
        harvested = set(self._labels_near(device, view, rules, now))
        if label in harvested:
            return "near"
        at, last, last_label = self._shown.get(device, (now, view, label))
        flipped = last_label != label and _is_near(last, view, at, rules, now)
        return "flipped" if harvested or flipped else "new"

    def _labels_near(self, device: str, view: int, rules: HarvestRules, now: float) -> Iterator[str]:
        samples = reversed(self._by_device.get(device, ()))
        for sample in islice(samples, _VIEWS_PER_DEVICE):
            if _is_near(sample.view, view, sample.at, rules, now):
                yield sample.label

    def show(self, device: str, view: int, label: str, now: float) -> None:
        """Keep what a device showed last, whether it is harvested or not."""
        self._shown[device] = now, view, label
        self._shown.move_to_end(device)
        if len(self._shown) > _DEVICES:
            self._shown.popitem(last=False)

    def remember(self, sample: HarvestedSample) -> None:
        """Keep a view that is harvested."""
        self._newest.append(sample)
        self._by_device.setdefault(sample.device, deque()).append(sample)
        if len(self._newest) > KEPT:
            device = self._newest.popleft().device
            self._by_device[device].popleft()  # the oldest of all is the oldest of its device
            if not self._by_device[device]:
                del self._by_device[device]


def _is_near(one: int, other: int, at: float, rules: HarvestRules, now: float) -> bool:
    return now - at <= rules.near_duplicate_s and distance(one, other) <= rules.near_duplicate_bits
