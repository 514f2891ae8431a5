"""Where the parts of installed versions are on this node's disk. Blocking.

The disk has the files of a bundle, and not the tar that its list of parts describes. So a version that was
put together from parts gets a file `.parts` next to its manifest: its lists, where each file was in the tar,
and the bytes between the files. What is read through it is compared with its digest each time.
"""

import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from bus.files.atomic_file import write_atomic
from schemas.errors import DECODE_ERRORS
from schemas.parts import Part, PartsError, decode_part_list, part_digest

NAME = ".parts"
"""Its name in a version directory. A model server ignores it."""


class Lists(NamedTuple):
    """The encoded lists of a bundle.

    Attributes:
        parts: Of the bundle's parts.
        list_parts: Of the parts of `parts`.
    """

    parts: bytes
    list_parts: bytes


class Holder(NamedTuple):
    """A file on this node with known parts.

    Attributes:
        parts: By digest.
        read: Returns bytes of the file from an offset; others than expected, or fewer, if it is damaged.
    """

    parts: dict[bytes, Part]
    read: Callable[[int, int], bytes]

    def find(self, wanted: Part) -> bytes | None:
        """Return the bytes of a part, None if they are not here or damaged."""
        if (part := self.parts.get(wanted.digest)) is None:
            return None
        content = self.read(part.start, part.size_bytes)
        intact = len(content) == wanted.size_bytes and part_digest(content) == wanted.digest
        return content if intact else None


class _Layout(Struct, frozen=True):
    lists: Lists
    files: list[tuple[str, int, int]]
    """Path, offset in the tar and size of each file, ascending."""
    between: bytes
    """The tar without the contents of its files."""


class Installed(NamedTuple):
    """An installed version.

    Attributes:
        lists: The list of its parts as a file with known parts.
        bundle: Its bundle.
    """

    lists: Holder
    bundle: Holder


def write_layout(directory: Path, bundle: Path, lists: Lists) -> None:
    """Describe a version that was just unpacked from a verified bundle.

    Raises:
        OSError: The disk refused.
    """
    between, end = [], 0
    with tarfile.open(bundle, "r:") as archive, bundle.open("rb") as tar:
        members = [m for m in archive if m.isreg() and m.size and not m.issparse()]
        files = [(member.name, member.offset_data, member.size) for member in members]
        for _, start, size_bytes in files:
            tar.seek(end)
            between.append(tar.read(start - end))
            end = start + size_bytes
        tar.seek(end)
        between.append(tar.read())
    write_atomic(directory / NAME, msgspec.msgpack.encode(_Layout(lists, files, b"".join(between))))


def read_installed(directories: Sequence[Path]) -> Iterator[Installed]:
    """Yield the versions with a readable description; others cost bytes, nothing else."""
    for directory in directories:
        try:
            layout = msgspec.msgpack.decode((directory / NAME).read_bytes(), type=_Layout)
            parts, list_parts = (_by_digest(encoded) for encoded in layout.lists)
        except (OSError, PartsError, *DECODE_ERRORS):
            continue
        yield Installed(
            Holder(list_parts, _reader(layout.lists.parts)), Holder(parts, _Tar(directory, layout).read)
        )


def stored_bundle(bundle: Path, parts: bytes, list_parts: bytes) -> Installed:
    """Return a bundle that is kept as it was fetched, with its encoded lists.

    Raises:
        PartsError: A list is damaged.
    """

    def read(start: int, size_bytes: int) -> bytes:
        return _read_at(bundle, start, size_bytes)

    return Installed(Holder(_by_digest(list_parts), _reader(parts)), Holder(_by_digest(parts), read))


def _by_digest(encoded: bytes) -> dict[bytes, Part]:
    return {part.digest: part for part in decode_part_list(encoded).parts()}


def _reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda start, size_bytes: content[start : start + size_bytes]


class _Tar:
    """The tar of an installed version, read from its files.

    Args:
        directory: Of the version.
        layout: Its description.
    """

    def __init__(self, directory: Path, layout: _Layout) -> None:
        self._directory = directory
        self._between = layout.between
        # Where each file begins, and how many bytes of the files lie before it.
        self._files = layout.files
        self._starts = [start for _, start, _ in layout.files]
        self._before = [0]
        for _, _, size_bytes in layout.files:
            self._before.append(self._before[-1] + size_bytes)

    def read(self, start: int, size_bytes: int) -> bytes:
        """Return bytes of one file, or of what lies before, between or behind the files."""
        number = bisect_right(self._starts, start) - 1
        if number >= 0:
            name, begin, length = self._files[number]
            if start < begin + length:
                return _read_at(self._directory / name, start - begin, size_bytes)
        offset = start - self._before[number + 1]
        return self._between[offset : offset + size_bytes]


def _read_at(path: Path, start: int, size_bytes: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(size_bytes)
    except OSError:
        return b""
