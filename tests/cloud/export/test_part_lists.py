"""A bundle is cut by its content: a change moves the parts around it and no others."""

import hashlib
import random
import tarfile
from pathlib import Path

import pytest

from cloud.export.part_lists import write_part_lists
from schemas.parts import MAX_PART_BYTES, PartList, decode_part_list, part_digest
from tests.serving import tar_of

CONTENT = random.Random(0).randbytes(3_000_000)  # several blocks of the search for ends


def listed(bundle: Path, members: list[tuple[str, bytes]]) -> PartList:
    """Write a bundle and its lists; returns the list of its parts."""
    tar_of(bundle, members)
    digest = write_part_lists(bundle, hashlib.sha256(bundle.read_bytes()).hexdigest())
    top = bundle.with_name(f"{bundle.name}.parts.parts").read_bytes()
    assert hashlib.sha256(top).hexdigest() == digest
    return decode_part_list(bundle.with_name(f"{bundle.name}.parts").read_bytes())


def test_both_lists_describe_their_files(tmp_path):
    """Digests and sizes of all parts are those of the bundle, and those of the list."""
    bundle = tmp_path / "1.tar"
    listed(bundle, [("a", CONTENT), ("b", b""), ("c", b"short")])
    for path in (bundle, tmp_path / "1.tar.parts"):
        content = path.read_bytes()
        found = decode_part_list(path.with_name(f"{path.name}.parts").read_bytes())
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.size_bytes == len(content)
        for part in found.parts():
            assert part.digest == part_digest(content[part.start : part.start + part.size_bytes])


def test_parts_end_where_files_do(tmp_path):
    """No part has bytes of a file and of the tar around it, which a node does not keep."""
    bundle = tmp_path / "1.tar"
    parts = list(listed(bundle, [("a", CONTENT), ("c", b"short")]).parts())
    starts = {part.start for part in parts}
    with tarfile.open(bundle) as archive:
        for member in archive:
            assert {member.offset_data, member.offset_data + member.size} <= starts


@pytest.mark.parametrize("position", [0, 1_048_576, 2_000_000, len(CONTENT)])
def test_an_insertion_changes_few_parts(tmp_path, position):
    """Parts end by their content, so what follows an insertion is cut as before."""
    changed = CONTENT[:position] + b"inserted" + CONTENT[position:]
    before = {part.digest for part in listed(tmp_path / "1.tar", [("a", CONTENT)]).parts()}
    new = [part for part in listed(tmp_path / "2.tar", [("a", changed)]).parts() if part.digest not in before]
    assert sum(part.size_bytes for part in new) < 3 * MAX_PART_BYTES


def test_the_cut_of_a_file_does_not_depend_on_its_place(tmp_path):
    """Behind other files and in another block of the search, a file has the same parts."""
    alone = [part.digest for part in listed(tmp_path / "1.tar", [("a", CONTENT)]).parts()]
    behind = listed(tmp_path / "2.tar", [("0", bytes(777_777)), ("a", CONTENT)])
    inside = alone[1:-1]  # without the header and the end of the tar
    assert set(inside) <= {part.digest for part in behind.parts()}
