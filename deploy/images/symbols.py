"""Cut symbol tables and debugging information off shared libraries: `symbols.py DIR`.

A linker writes what is loaded first, and behind it the tables for linkers and debuggers. The dynamic loader
reads program headers only, so a library may end where its last segment ends. Of TensorFlow's largest library,
1096 MB, these tables are 220. Works for libraries of any architecture, with the standard library alone.
"""

import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: amd64 and arm64
_SHARED = 3  # ET_DYN: libraries, extension modules, and programs that can be loaded anywhere
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


class _Header(NamedTuple):
    """The header of an ELF file."""

    ident: bytes
    kind: int
    machine: int
    version: int
    entry: int
    segments_at: int
    sections_at: int
    flags: int
    size: int
    segment_size: int
    segments: int
    section_size: int
    sections: int
    names_section: int


def main(tree: Path) -> None:
    """Cut all libraries in a folder and print how much that was."""
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    print(f"{tree}: {sum(map(cut, files)) / 1e6:.0f} MB of symbols cut off")


def cut(path: Path) -> int:
    """Cut a file behind its last segment and return the bytes that it lost: 0 for any other kind of file."""
    before = path.stat().st_size
    with path.open("r+b") as file:
        content = file.read(_HEADER.size)
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            return 0
        header = _Header(*_HEADER.unpack(content))
        known = header.kind == _SHARED and header.segment_size == _SEGMENT.size
        # An incomplete file, or one whose sections are not behind its segments, is left as it is.
        if not known or header.sections_at >= before or (end := _end(file, header)) > header.sections_at:
            return 0
        file.seek(0)
        file.write(_HEADER.pack(*header._replace(sections_at=0, sections=0, names_section=0)))
        file.truncate(end)
    return before - end


def _end(file: BinaryIO, header: _Header) -> int:
    """Return the offset behind the last byte that a segment or the table of segments has."""
    file.seek(header.segments_at)
    table = file.read(header.segment_size * header.segments)
    end = header.segments_at + len(table)
    for number in range(header.segments):
        _, _, offset, _, _, size, _, _ = _SEGMENT.unpack_from(table, number * header.segment_size)
        end = max(end, offset + size if size else 0)
    return end


if __name__ == "__main__":
    main(Path(sys.argv[1]))
