"""Keep recently answered photos that were not harvested, for a label that may follow."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

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

    Bounded in bytes: the oldest are dropped first.

    Args:
        max_bytes: Of memory for all; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answered: OrderedDict[tuple[str, str], AnsweredPhoto] = OrderedDict()
        self._bytes = 0

    def add(self, answered: AnsweredPhoto) -> None:
        """Add a photo and drop the oldest beyond the limit; one larger than the limit is not added."""
        photo = answered.photo
        self.remove(photo.device, photo.photo_id)  # a repeated photo becomes the newest
        if answered.size_bytes > self._max_bytes:
            return
        self._answered[photo.device, photo.photo_id] = answered
        self._bytes += answered.size_bytes
        while self._bytes > self._max_bytes:
            _, oldest = self._answered.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def find(self, device: str, photo_id: str) -> AnsweredPhoto | None:
        """Return a photo that is still kept."""
        return self._answered.get((device, photo_id))

    def forget(self, covers: Callable[[str, str], bool]) -> None:
        """Remove the photos that are covered, by device and photo id."""
        for key in [key for key in self._answered if covers(*key)]:
            self.remove(*key)

    def remove(self, device: str, photo_id: str) -> None:
        """Remove a photo if it is kept."""
        if (found := self._answered.pop((device, photo_id), None)) is not None:
            self._bytes -= found.size_bytes
