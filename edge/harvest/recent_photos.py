"""Keep recently answered photos that were not harvested, for a label that may follow."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from edge.scheduling.fair_share import device_with_most
from edge.serving.prediction import Prediction
from schemas.messages import Photo

_ENTRY_BYTES = 1000
_SCORE_BYTES = 100


class AnsweredPhoto(NamedTuple):
    """A photo and its prediction."""

    photo: Photo
    prediction: Prediction

    @property
    def size_bytes(self) -> int:
        """Approximate size in memory. Of small photos, most of it is not the image."""
        prediction = self.prediction
        scores_bytes = _SCORE_BYTES * len(prediction.scores)
        return _ENTRY_BYTES + len(self.photo.image) + len(prediction.embedding) + scores_bytes


class RecentPhotos:
    """Encoded photos by device and photo id, in memory only.

    Bounded in bytes: the oldest of the device with most bytes are dropped first, so that a device that sends
    much drops its own.

    Args:
        max_bytes: Of memory for all; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answered: dict[str, OrderedDict[str, AnsweredPhoto]] = {}
        self._bytes: dict[str, int] = {}

    @property
    def size_bytes(self) -> int:
        """Approximate size of all in memory."""
        return sum(self._bytes.values())

    def add(self, answered: AnsweredPhoto) -> None:
        """Add a photo and drop others beyond the limit; one larger than the limit is not added."""
        photo = answered.photo
        self.remove(photo.device, photo.photo_id)  # a repeated photo becomes the newest
        if answered.size_bytes > self._max_bytes:
            return
        self._answered.setdefault(photo.device, OrderedDict())[photo.photo_id] = answered
        self._bytes[photo.device] = self._bytes.get(photo.device, 0) + answered.size_bytes
        while self.size_bytes > self._max_bytes:
            largest = device_with_most(self._bytes, photo.device)
            self.remove(largest, next(iter(self._answered[largest])))

    def find(self, device: str, photo_id: str) -> AnsweredPhoto | None:
        """Return a photo that is still kept."""
        photos = self._answered.get(device)
        return None if photos is None else photos.get(photo_id)

    def forget(self, covers: Callable[[str, str], bool]) -> None:
        """Remove the photos that are covered, by device and photo id."""
        keys = [(device, photo_id) for device, photos in self._answered.items() for photo_id in photos]
        for key in keys:
            if covers(*key):
                self.remove(*key)

    def remove(self, device: str, photo_id: str) -> None:
        """Remove a photo if it is kept."""
        photos = self._answered.get(device)
        if photos is None or (found := photos.pop(photo_id, None)) is None:
            return
        self._bytes[device] -= found.size_bytes
        if not photos:
            del self._answered[device], self._bytes[device]
