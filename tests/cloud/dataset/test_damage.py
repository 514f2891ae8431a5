"""Rules of cloud/dataset/damage.py, and of reading on after a damaged data file."""

from pathlib import Path

import pytest

from cloud.dataset.damage import (
    ASIDE,
    Damage,
    find_damage,
    find_damaged_manifests,
    scan_undamaged,
    set_aside,
    set_manifests_aside,
)
from cloud.dataset.store import HAS_IMAGE, Label, Row, Store
from schemas.errors import PermanentError, TransientError


def row(number: int) -> Row:
    return Row(photo_id=f"{number:032x}", image=b"%06d" % number, width=1, height=1, received_at_ms=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three commits of ten photos each."""
    store = Store.open(tmp_path / "photos.lance")
    for start in (0, 10, 20):
        store.upsert([row(number) for number in range(start, start + 10)])
    return store


def data_files(store: Store) -> list[Path]:
    """Return the data files in the order of their commits."""
    fragments = store.table.open_version().get_fragments()
    return [Path(store.table.url, "data", fragment.metadata.files[0].path) for fragment in fragments]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_footer(content: bytes) -> bytes:
    return content[:-64] + bytes(64)


@pytest.mark.parametrize("damage", [cut, without_footer, lambda _: b"", lambda content: bytes(len(content))])
def test_a_damaged_file_costs_its_own_rows(store: Store, damage) -> None:
    """Commits fail with the command that helps; it takes the file out, and the other rows stay usable."""
    path = data_files(store)[1]
    path.write_bytes(damage(path.read_bytes()))
    store = Store.open(store.table.url)  # Lance has the structure of files that it has read in memory
    with pytest.raises(TransientError, match="'gleaner cloud repair' finds damaged files"):
        store.upsert([row(99)])
    read = list(scan_undamaged(store.table, ["photo_id", "image"], where=HAS_IMAGE))
    assert sum(isinstance(one, dict) for one in read) == 20
    assert [(one.rows, one.files) for one in read if isinstance(one, Damage)] == [(10, (path.name,))]
    (found,) = find_damage(store.table)
    assert (found.rows, found.files) == (10, (path.name,))
    assert set_aside(store.table, [found]) == Path(store.table.url, ASIDE)
    assert [file.name for file in Path(store.table.url, ASIDE).iterdir()] == [path.name]
    assert store.upsert([row(99), row(1)]) == {f"{99:032x}": "stored", f"{1:032x}": "duplicate"}
    assert store.label([Label(photo_id=f"{2:032x}", label="cat", by="ann", at_ms=5)]) == {
        f"{2:032x}": "stored"
    }
    assert store.count() == 21
    assert find_damage(store.table) == []


def test_a_missing_file_is_found_too(store: Store) -> None:
    """A file that is gone is reported like a damaged one, and the table can be written after it."""
    data_files(store)[0].unlink()
    set_aside(store.table, find_damage(store.table))
    assert store.count() == 20


def test_a_table_without_a_readable_part_is_an_outage(store: Store) -> None:
    """Where nothing can be read, the disk is away: no photo is left out for that."""
    for path in data_files(store):
        path.unlink()
    with pytest.raises(TransientError, match="cannot be read"):
        list(scan_undamaged(store.table, ["photo_id"], where=HAS_IMAGE))


def test_a_version_that_is_removed_while_it_is_read_is_no_damage(store: Store) -> None:
    """A forgetting meanwhile ends the reading: it must not continue with a part of the photos."""
    rows = scan_undamaged(store.table, ["photo_id", "image"], where=HAS_IMAGE)
    next(rows)
    other = Store.open(store.table.url)
    other.change([f"{1:032x}"], lambda record: record | {"lane": "hard"})
    other.purge()
    with pytest.raises(TransientError, match="was removed while it was read; try again"):
        list(rows)
    assert len(list(scan_undamaged(store.table, ["photo_id", "image"], where=HAS_IMAGE))) == 30


def test_an_invalid_condition_is_the_callers_mistake(store: Store) -> None:
    """A wrong column is not damage."""
    with pytest.raises(ValueError, match="nothing"):
        list(scan_undamaged(store.table, ["photo_id"], where="nothing = 1"))


def test_a_table_on_an_object_store_is_not_repaired(store: Store) -> None:
    """There a file may only be unreachable; the error suggests what to do."""
    away = Store.open(store.table.url).table
    object.__setattr__(away, "root", None)
    with pytest.raises(PermanentError, match="object store; restore its data files"):
        set_aside(away, [])


def flip(path: Path) -> None:
    """Damage a manifest as a bad disk does: the end, by which a torn one is recognised, is whole."""
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) - 64, 97):
        content[at] ^= 8
    path.write_bytes(content)


@pytest.mark.parametrize("count", [1, 2])
def test_the_table_goes_back_to_the_version_that_can_be_read(tmp_path: Path, count: int) -> None:
    """The error names the command that helps; it passes every damaged version, and writing continues."""
    url = tmp_path / "photos.lance"
    store = Store.open(url)
    for number in range(3):
        store.upsert([row(number)])
    for path in sorted((url / "_versions").glob("*.manifest"))[:count]:
        flip(path)
    with pytest.raises(PermanentError, match="'gleaner cloud repair' finds damaged files"):
        Store.open(url)
    damaged = find_damaged_manifests(url)
    assert len(damaged) == count
    assert set_manifests_aside(url, damaged) == url / ASIDE
    assert find_damaged_manifests(url) == []
    store = Store.open(url)
    assert store.count() == 3 - count
    store.upsert([row(9)])
    assert store.count() == 4 - count


def test_a_healthy_table_has_no_damaged_version(tmp_path: Path) -> None:
    """Nothing is found in it, nor where there is no table."""
    Store.open(tmp_path / "photos.lance")
    assert find_damaged_manifests(tmp_path / "photos.lance") == []
    assert find_damaged_manifests(tmp_path / "nothing") == []
