"""Small pictures of the last photos that devices sent, where this broker carries photos."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from bus.newest import put_newest
from cloud.labeling.contact_sheet import encoded_thumbnail
from schemas.codec import decode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Forget
from schemas.topics import PHOTO

MAX_PREVIEWS = 512
"""Most pictures in memory, of about 10 kB each; the oldest make room."""
SIZE_PX = 320
PAUSE_S = 0.5
"""Least seconds between two pictures of one device: a camera may be faster than any eye."""
_MAX_DEVICES = 4096


class _Preview(NamedTuple):
    """A picture, and the camera that it is from."""

    node: str
    device: str
    content: bytes


class PhotoPreviews:
    """The last pictures by photo id. Bounded, see above; what comes too fast is skipped."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, _Preview] = OrderedDict()
        self._last: OrderedDict[str, float] = OrderedDict()

    def get(self, photo_id: str) -> bytes | None:
        """Return a picture as JPEG, None if it is not kept."""
        found = self._pictures.get(photo_id)
        return None if found is None else found.content

    def kept(self) -> set[str]:
        """Return the ids of the kept pictures."""
        return set(self._pictures)

    def forget(self, photo_ids: Iterable[str]) -> None:
        """Drop the pictures of photos that were taken out."""
        for photo_id in photo_ids:
            self._pictures.pop(photo_id, None)

    def obey(self, node: str, order: Forget) -> None:
        """Drop what an edge is ordered to forget, and of a whole camera or node also what is newer."""
        self.forget(order.photo_ids)
        self.forget(
            [
                photo_id
                for photo_id, one in self._pictures.items()
                if one.node == node and (order.before_ms is not None or one.device in order.devices)
            ]
        )

    def __contains__(self, photo_id: str) -> bool:
        return photo_id in self._pictures

    async def add(self, topic: str, payload: bytes) -> bool:
        """Keep a picture of a photo; return whether it was kept. Safe to cancel."""
        now = time.monotonic()
        if now - self._last.get(topic, -PAUSE_S) < PAUSE_S:
            return False
        put_newest(self._last, topic, now, _MAX_DEVICES)
        names = PHOTO.match(topic)
        if names is None:
            return False
        try:
            photo = decode(PHOTO, payload, names)
        except (CodecError, PermanentError):
            return False  # the edge's answer explains what is wrong with it
        content = await asyncio.to_thread(encoded_thumbnail, photo.image, (SIZE_PX, SIZE_PX))
        self._pictures[photo.photo_id] = _Preview(names["node"], names["device"], content)
        if len(self._pictures) > MAX_PREVIEWS:
            self._pictures.popitem(last=False)
        return True
