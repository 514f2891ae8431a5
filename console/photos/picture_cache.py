"""Thumbnails of stored photos: made once, kept on the disk within a bound."""

import contextlib
import threading
from collections import OrderedDict
from pathlib import Path

from cloud.dataset.store import Store
from cloud.labeling.contact_sheet import encoded_thumbnail

SIZES = (320, 1024)
"""Longest sides in pixels: for grids, and for one photo alone."""
_ROOM_SHARE = 0.9
_DECODING = 2


class PictureCache:
    """Thumbnails by photo id and size. All methods block, and are safe to call from several threads.

    Bounded: beyond `max_bytes`, those that were not asked for longest are removed.

    Args:
        store: Where the photos are.
        folder: Of the cache; what is in it is kept.
        max_bytes: Most bytes of files.
    """

    def __init__(self, store: Store, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        # A page asks for dozens at once: decoding all of them together would take the memory of all.
        self._decoding = threading.Semaphore(_DECODING)

    def open(self) -> None:
        """Find the files of earlier runs; call once."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = [(path.stat(), path) for path in self._folder.glob("*/*.jpg")]
        for stat, path in sorted(found, key=lambda one: one[0].st_mtime):
            self._files[path.name] = stat.st_size
            self._bytes += stat.st_size

    def get(self, photo_id: str, size: int) -> bytes | None:
        """Return a thumbnail as JPEG; None for an unknown photo or size.

        Raises:
            TransientError: The dataset cannot be read now.
        """
        if size not in SIZES:
            return None
        name = f"{photo_id}-{size}.jpg"
        with contextlib.suppress(FileNotFoundError):
            content = self._path(name).read_bytes()
            with self._lock:
                if name in self._files:
                    self._files.move_to_end(name)
            return content
        return self._make(photo_id, size, name)

    def forget(self, photo_ids: list[str]) -> None:
        """Remove what is kept of photos that were taken out of the dataset."""
        for photo_id in photo_ids:
            for size in SIZES:
                self._remove(f"{photo_id}-{size}.jpg")

    def kept(self) -> set[str]:
        """Return the ids of the cached photos."""
        with self._lock:
            return {name.partition("-")[0] for name in self._files}

    def _make(self, photo_id: str, size: int, name: str) -> bytes | None:
        with self._decoding:
            row = self._store.find([photo_id], ["image", "forgotten_at_ms", "width", "height"]).get(photo_id)
            if row is None or row["forgotten_at_ms"] is not None or not isinstance(row["image"], bytes):
                return None
            # No larger than it is: a photo is harvested in the size that the model sees.
            sides = [side for side in (row["width"], row["height"]) if isinstance(side, int)]
            shown = min(size, max(sides, default=size))
            content = encoded_thumbnail(row["image"], (shown, shown))
        self._keep(name, content)
        if forgotten(self._store, {photo_id}):  # it was taken out meanwhile, when there was no file to remove
            self._remove(name)
            return None
        return content

    def _keep(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        # Not synced: a lost thumbnail is made again, and a torn one has another name.
        partial = path.with_suffix(f".{threading.get_ident()}")
        partial.write_bytes(content)
        partial.replace(path)
        with self._lock:
            self._bytes += len(content) - self._files.pop(name, 0)
            self._files[name] = len(content)
            full = self._bytes > self._max_bytes
            oldest = list(self._files) if full else []
        for other in oldest:
            if self._bytes <= self._max_bytes * _ROOM_SHARE:
                break
            self._remove(other)

    def _remove(self, name: str) -> None:
        with self._lock:
            self._bytes -= self._files.pop(name, 0)
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


def taken_out(store: Store, photo_ids: set[str]) -> list[str]:
    """Return those of some photos that were taken out for good, and no one that never came; blocks."""
    found = store.find(sorted(photo_ids), ["forgotten_at_ms"])
    return [key for key, row in found.items() if row["forgotten_at_ms"] is not None]


def forgotten(store: Store, photo_ids: set[str]) -> list[str]:
    """Return those of some photos that are no longer in the dataset; blocks."""
    found = store.find(sorted(photo_ids), ["forgotten_at_ms"])
    return [key for key in photo_ids if key not in found or found[key]["forgotten_at_ms"] is not None]
