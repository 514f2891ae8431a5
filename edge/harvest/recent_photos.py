"""The photos that were answered lately and not harvested: for a label that follows."""

from collections import OrderedDict
from typing import NamedTuple

from edge.serving.prediction import Prediction
from schemas.messages import Photo

_ENTRY_BYTES = 1000
_SCORE_BYTES = 100


class AnsweredPhoto(NamedTuple):
    """A photo, and what the model said of it."""

    photo: Photo
    said: Prediction

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory; of small photos most is not the image."""
        said = self.said
        return _ENTRY_BYTES + len(self.photo.image) + len(said.embedding) + _SCORE_BYTES * len(said.scores)


class RecentPhotos:
    """Photos as they came, in case that somebody labels them; nothing is decoded for that.

    Bounded in bytes: the oldest are forgotten first. A restart forgets all.

    Args:
        most_bytes: Of memory, for all together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._answered: OrderedDict[tuple[str, str], AnsweredPhoto] = OrderedDict()
        self._bytes = 0

    def keep(self, answered: AnsweredPhoto) -> None:
        """Keep a photo, if it is no larger than all together may be."""
        photo = answered.photo
        self.forget(photo.device, photo.photo_id)
        if answered.size_bytes > self._most_bytes:
            return
        self._answered[photo.device, photo.photo_id] = answered
        self._bytes += answered.size_bytes
        while self._bytes > self._most_bytes:
            _, oldest = self._answered.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def find(self, device: str, photo_id: str) -> AnsweredPhoto | None:
        """Return a photo that is still here."""
        return self._answered.get((device, photo_id))

    def forget(self, device: str, photo_id: str) -> None:
        """Forget a photo, if it is here."""
        if (found := self._answered.pop((device, photo_id), None)) is not None:
            self._bytes -= found.size_bytes
