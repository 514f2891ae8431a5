"""Cut a bundle into parts by its content, and write the lists with which edges fetch only what they lack.

Content-defined chunking: a part ends where a hash of the 32 bytes before it has a certain form, so an
insertion changes the parts around it and no others. Members of the tar are cut separately, because a node
keeps the files and not the tar.

Source: Xia et al., FastCDC (2016), for the Gear hash.
"""

import hashlib
import tarfile
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bus.files.atomic_file import write_atomic
from schemas.parts import MAX_PART_BYTES, SUFFIX, Part, encode_part_list, part_digest

_MEAN_BITS = 10
"""Binary logarithm of the mean distance of places where a part may end."""
_MIN_PART_BYTES = 256
_WINDOW_BYTES = 32
_BLOCK_BYTES = 1 << 20
# Never change these: other numbers would cut all files elsewhere, and nodes would fetch them whole once.
_GEAR = np.frombuffer(hashlib.shake_128(b"gleaner parts").digest(4 * 256), dtype="<u4")

Bytes = NDArray[np.uint8]


def write_part_lists(bundle: Path, sha256: str) -> str:
    """Write the two lists of parts next to a bundle that is complete.

    Args:
        bundle: The tar.
        sha256: Of the tar.

    Returns:
        SHA-256 of the list of the list's parts.
    """
    content: Bytes = np.memmap(bundle, dtype=np.uint8, mode="r")
    parts = [part for start, end in _segments(bundle) for part in _cut(content, start, end)]
    encoded = encode_part_list(sha256, len(content), parts)
    path = bundle
    for _ in range(2):
        path = path.with_name(path.name + SUFFIX)
        write_atomic(path, encoded)
        digest, content = hashlib.sha256(encoded).hexdigest(), np.frombuffer(encoded, np.uint8)
        encoded = encode_part_list(digest, len(content), _cut(content, 0, len(content)))
    return digest


def _segments(bundle: Path) -> Iterator[tuple[int, int]]:
    """Yield start and end of each file's content, and of what lies between them."""
    end = 0
    with tarfile.open(bundle, "r:") as archive:
        for member in archive:
            if member.isreg() and member.size and not member.issparse():
                yield end, member.offset_data
                end = member.offset_data + member.size
                yield member.offset_data, end
    yield end, bundle.stat().st_size


def _cut(content: Bytes, start: int, end: int) -> Iterator[Part]:
    """Yield the parts of a segment."""
    candidates = np.concatenate([np.empty(0, np.int64), *_candidates(content, start, end)])
    ends = candidates.tolist()
    while start < end:
        following = bisect_left(ends, start + _MIN_PART_BYTES)
        stop = min(ends[following] if following < len(ends) else end, start + MAX_PART_BYTES, end)
        yield Part(part_digest(content[start:stop].tobytes()), start, stop - start)
        start = stop


def _candidates(content: Bytes, start: int, end: int) -> Iterator[NDArray[np.int64]]:
    """Yield the offsets at which a part may end, by blocks."""
    for begin in range(start, end, _BLOCK_BYTES):
        first = max(start, begin - _WINDOW_BYTES + 1)
        found = _hashes(content[first : min(begin + _BLOCK_BYTES, end)])[begin - first :]
        yield np.flatnonzero(found >> np.uint32(32 - _MEAN_BITS) == 0) + begin + 1


def _hashes(window: Bytes) -> NDArray[np.uint32]:
    """Return the Gear hash at each byte: the numbers of the latest 32 bytes, doubled by age and added."""
    hashes = _GEAR[window]
    for span in (1, 2, 4, 8, 16):  # the hash of twice as many bytes from two hashes
        older = hashes[:-span] << np.uint32(span)
        hashes = hashes.copy()
        hashes[span:] += older
    return hashes
