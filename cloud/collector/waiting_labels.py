"""Limit how many labels of a camera may wait for photos that have not arrived. No I/O.

A label may come before its photo, so it is stored without one and removed after a month. A camera that labels
photos which it never sends would fill the dataset, and the memory in which its ids are looked up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cloud.dataset.labels import Label

MAX_WAITING = 100_000
"""Labels of a camera without a photo between two clean-ups, which are a day apart: more than one a second."""

Camera = tuple[str | None, str | None]


@dataclass(slots=True)
class WaitingLabels:
    """Counts labels without a photo by camera; those of people are not limited. As large as the fleet."""

    most: int = MAX_WAITING
    _by_camera: Counter[Camera] = field(default_factory=Counter)

    def to_look_up(self, labels: Iterable[Label]) -> list[str]:
        """Return the ids of photos that must be known for their labels to be stored."""
        return [label.photo_id for label in labels if self._by_camera[_camera(label)] >= self.most]

    def allowed(self, labels: Iterable[Label], known: Mapping[str, object]) -> list[Label]:
        """Return the labels to store: those for known photos, and those of cameras below the limit."""
        return [
            label
            for label in labels
            if label.photo_id in known or self._by_camera[_camera(label)] < self.most
        ]

    def count(self, labels: Iterable[Label], outcomes: Mapping[str, str]) -> None:
        """Count labels that were stored without a photo."""
        self._by_camera.update(
            _camera(label)
            for label in labels
            if label.device is not None and outcomes.get(label.photo_id) == "waiting"
        )

    def reset(self) -> None:
        """Count from zero, after old labels were removed."""
        self._by_camera.clear()


def _camera(label: Label) -> Camera:
    return label.node, label.device
