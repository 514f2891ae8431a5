"""Mark the photos that are being decoded, so that a photo that kills the process is known to the next run.

The marks are in a memory-mapped file: setting one costs microseconds, and the kernel keeps the page when the
process dies. It is not synced: a loss of power loses the marks, but not the counts of `attempts`.
"""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bus.outbox.sqlite import StorageError
from edge.scheduling.in_flight import PhotoKey
from schemas.errors import DECODE_ERRORS

_SLOT_BYTES = 64 * 1024  # 256 photos, the largest batch, with names and ids of full length


class Mark:
    """The mark of one call.

    Args:
        marks: Where it is set.
        slot: Its place; None if there was none.
    """

    def __init__(self, marks: "Marks", slot: int | None) -> None:
        self._marks = marks
        self._slot = slot

    def clear(self) -> None:
        """Remove the mark; idempotent."""
        if self._slot is not None:
            self._marks.release(self._slot)
        self._slot = None


class Marks:
    """Slots, one for each concurrent call, that hold the keys of its photos.

    Args:
        path: Of the file.
        slots: Number of concurrent calls.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self.left: list[PhotoKey] = []
        """Photos in batches that were marked when the last run ended: one of them may have ended it."""
        self.left_alone: list[PhotoKey] = []
        """Photos alone in their call that were marked when the last run ended."""
        self._path = path
        self._free = list(range(slots))
        self._bytes = slots * _SLOT_BYTES

    def __enter__(self) -> Self:
        """Read the marks that the last run left, and map the file.

        Raises:
            StorageError: The file cannot be read or created.
        """
        try:
            self.left, self.left_alone = _read(self._path)
            if not self._path.exists() or self._path.stat().st_size != self._bytes:
                # Written and not only truncated: storing into a page for which a full disk has no block kills
                # the process.
                self._path.write_bytes(bytes(self._bytes))
            with self._path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            raise StorageError(f"cannot use {self._path}: {error.strerror}") from None
        return self

    def forget(self) -> None:
        """Clear what the last run left, once it is recorded elsewhere."""
        self._map[:] = bytes(self._bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear all marks: the process ends in order."""
        self.forget()
        self._map.close()

    def set(self, keys: Sequence[PhotoKey], *, alone: bool = False) -> Mark:
        """Mark photos that are about to be decoded; without a free slot they are not marked.

        Args:
            keys: Of the photos of a call.
            alone: Whether a suspected photo is tried alone.
        """
        if not self._free:
            return Mark(self, None)
        slot = self._free.pop()
        # As many keys as fit: a batch is smaller, but its limits are configured elsewhere.
        text = json.dumps([alone, keys[:256]]).encode()[: _SLOT_BYTES - 1]
        start = slot * _SLOT_BYTES
        self._map[start : start + len(text) + 1] = text + b"\0"
        return Mark(self, slot)

    def release(self, slot: int) -> None:
        """Remove the marks of a slot."""
        self._map[slot * _SLOT_BYTES] = 0
        self._free.append(slot)


def _read(path: Path) -> tuple[list[PhotoKey], list[PhotoKey]]:
    """Return the marked photos in batches, and those alone."""
    content = path.read_bytes() if path.exists() else b""
    found: dict[bool, list[PhotoKey]] = {False: [], True: []}
    for start in range(0, len(content), _SLOT_BYTES):
        text, _, _ = content[start : start + _SLOT_BYTES].partition(b"\0")
        if text:
            alone, keys = _parse(text)
            found[alone] += keys
    return found[False], found[True]


def _parse(text: bytes) -> tuple[bool, list[PhotoKey]]:
    try:
        alone, keys = json.loads(text)
        return alone is True, [(str(device), str(photo_id)) for device, photo_id in keys]
    except (TypeError, *DECODE_ERRORS):  # the process died while it wrote the mark, before it decoded
        return False, []
