"""Giving back memory-mapped pages."""

import mmap
import sys
from pathlib import Path

import pytest

from edge.modelserver.runtimes.allocator import release_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pages of a mapping are counted in /proc")

_KB = 4096


def resident_kb(file: Path) -> int:
    """Return the resident memory of this process's mappings of a file."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            ours = line.endswith(str(file.resolve()))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_the_pages_of_a_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    """Only those of the named files, also through a symbolic link; their bytes stay the same."""
    one, other, link = tmp_path / "one file", tmp_path / "other", tmp_path / "link"
    for path in (one, other):
        path.write_bytes(b"x" * _KB * 1024)
    link.symlink_to(one)
    with one.open("rb") as first, other.open("rb") as second:
        maps = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in (first, second)]
    assert [whole.find(b"y") for whole in maps] == [-1, -1]
    assert resident_kb(one) == resident_kb(other) == _KB
    release_pages([link])
    assert (resident_kb(one), resident_kb(other)) == (0, _KB)
    assert maps[0][-1:] == b"x"
    for mapped in maps:
        mapped.close()


def test_what_may_have_been_changed_is_kept(tmp_path: Path) -> None:
    """Pages of a private mapping that can be written are the only copy of what was written."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapped[0] = ord("y")
    release_pages([path])
    assert mapped[:2] == b"yx"
    mapped.close()
