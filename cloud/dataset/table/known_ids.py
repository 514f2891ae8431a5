"""Which fragments of a table may hold which photos, so that a write does not have to read the column of ids.

A photo that arrives is nearly always new. Without this, finding that out reads the ids of the whole table,
once per commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cloud.dataset.table.lance_package import lance

_ID_CHARS = 32
# Odd numbers with well-mixed bits. Ids may be counters, in which only a few of the 32 characters differ.
_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)


@dataclass(slots=True)
class KnownIds:
    """Hashes of the ids in each fragment: 8 bytes per row. Safe to use from several threads.

    A fragment's ids never change: rows are deleted from it, and written again into another one.
    """

    _by_file: dict[str, NDArray[np.uint64]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def loaded(self) -> bool:
        """Whether ids were read already, so that only those of new fragments have to be."""
        return bool(self._by_file)

    def may_hold(self, dataset: lance.LanceDataset, photo_ids: Sequence[str]) -> list[lance.LanceFragment]:
        """Return the fragments that may hold one of the photos; the others hold none of them.

        The first call reads all ids, later ones those of new fragments.

        Args:
            dataset: The version to look at.
            photo_ids: 32 hexadecimal digits each.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is damaged.
        """
        fragments = {_file_of(fragment): fragment for fragment in dataset.get_fragments()}
        wanted = hashes(pa.array(photo_ids, pa.string()))
        with self._lock:
            for name in self._by_file.keys() - fragments.keys():
                del self._by_file[name]
            if unread := {name: one for name, one in fragments.items() if name not in self._by_file}:
                self._read(dataset, unread)
            return [one for name, one in fragments.items() if _any_common(self._by_file[name], wanted)]

    def _read(self, dataset: lance.LanceDataset, fragments: dict[str, lance.LanceFragment]) -> None:
        scanner = dataset.scanner(
            columns=["photo_id"], fragments=list(fragments.values()), with_row_address=True
        )
        rows = scanner.to_table()
        found = hashes(rows["photo_id"])
        # The upper half of a row's address is the number of its fragment.
        numbers = rows["_rowaddr"].to_numpy() >> np.uint64(32)
        order = np.lexsort((found, numbers))
        found, numbers = found[order], numbers[order]
        for name, fragment in fragments.items():
            start, end = np.searchsorted(numbers, [fragment.fragment_id, fragment.fragment_id + 1])
            self._by_file[name] = found[start:end]


def hashes(photo_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each id; different ids rarely have the same."""
    chunks = photo_ids.chunks if isinstance(photo_ids, pa.ChunkedArray) else [photo_ids]
    parts = [np.frombuffer(_fixed(chunk), np.uint64) for chunk in chunks if len(chunk)]
    words = np.concatenate([np.zeros(0, np.uint64), *parts]).reshape(-1, len(_MULTIPLIERS))
    mixed = words * _MULTIPLIERS  # wraps around
    mixed ^= mixed >> np.uint64(29)
    return np.asarray((mixed * _MULTIPLIERS[::-1]).sum(axis=1, dtype=np.uint64))


def _fixed(ids: pa.Array) -> memoryview | bytes:
    """Return ids of 32 characters each as bytes."""
    try:
        fixed = ids.cast(pa.binary()).cast(pa.binary(_ID_CHARS))
    except pa.ArrowInvalid:
        # Of another length, which nothing here writes: cut or padded, it may be found too often.
        return np.array(ids.to_pylist(), f"S{_ID_CHARS}").tobytes()
    start = fixed.offset * _ID_CHARS
    return memoryview(fixed.buffers()[1])[start : start + len(fixed) * _ID_CHARS]


def _any_common(ordered: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> bool:
    if not len(ordered):
        return False
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return bool((ordered[at] == wanted).any())


def _file_of(fragment: lance.LanceFragment) -> str:
    # Not the fragment's number: numbers restart when a table is deleted and created again.
    return str(fragment.metadata.files[0].path)
