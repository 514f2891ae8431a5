"""Rules of cloud/dataset/table/known_ids.py: which fragments may hold a photo."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.known_ids import hashes
from tests.nodes import photo_id


def photo(number: int) -> Row:
    return Row(photo_id=photo_id(number), image=b"x", width=1, height=1, received_at_ms=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of three fragments with two photos each."""
    store = Store.open(tmp_path / "photos.lance")
    for first in (0, 2, 4):
        store.upsert([photo(first), photo(first + 1)])
    return store


def holding(store: Store, *numbers: int) -> list[int]:
    """Return the fragments that may hold photos."""
    found = store.table.may_hold(store.table.open_version(), [photo_id(one) for one in numbers])
    return [fragment.fragment_id for fragment in found]


def test_a_photo_is_looked_for_where_it_may_be(store):
    """Known photos are in one fragment each, unknown ones in none, and later commits are seen."""
    first, second, third = (fragment.fragment_id for fragment in store.table.open_version().get_fragments())
    assert holding(store, 0) == [first]
    assert holding(store, 1, 5, 77) == [first, third]
    assert holding(store, 77) == []
    Store.open(store.table.url).upsert([photo(77)])
    assert len(holding(store, 77)) == 1
    assert second not in holding(store, 77, 0, 4)


def test_a_write_reads_only_what_it_may_replace(store):
    """A damaged file affects only its own rows: new photos and labels of others are stored."""
    holding(store, 0)  # reads the ids while the file is whole
    assert store.table.root is not None
    fragment = store.table.open_version().get_fragments()[1]
    (store.table.root / "data" / fragment.metadata.files[0].path).write_bytes(b"torn")
    assert store.upsert([photo(8)]) == {photo_id(8): "stored"}
    assert store.upsert([photo(0)]) == {photo_id(0): "duplicate"}
    labels = [Label(photo_id=photo_id(5), label="cat", by="ann", at_ms=1)]
    assert store.label(labels) == {photo_id(5): "stored"}


def test_rows_are_replaced_where_fragments_become_empty(store):
    """A label rewrites its photo's row once, and a fragment without rows disappears."""
    labels = [Label(photo_id=photo_id(n), label="dog", by="ann", at_ms=1) for n in (0, 1, 2)]
    store.label(labels)
    rows = {row["photo_id"]: row for row in store.scan(["photo_id", "human_label", "revision"])}
    assert sorted(rows) == [photo_id(n) for n in range(6)]
    assert [rows[photo_id(n)]["revision"] for n in range(4)] == [2, 2, 2, 1]
    assert [len(fragment.to_table()) for fragment in store.table.open_version().get_fragments()] == [1, 2, 3]


def test_a_table_that_was_created_anew_is_read_anew(store):
    """Its fragments have the numbers of the old ones, and not their rows."""
    assert holding(store, 0)
    shutil.rmtree(store.table.url)
    Store.open(store.table.url).upsert([photo(9)])
    assert holding(store, 0) == []
    assert len(holding(store, 9)) == 1


def test_ids_that_are_counters_have_different_hashes():
    """Ids of simple devices differ in their last characters only, those of others everywhere."""
    counters = [f"{number:032x}" for number in range(50_000)]
    reversed_counters = [one[::-1] for one in counters[1:]]
    found = hashes(pa.array([*counters, *reversed_counters]))
    assert len(np.unique(found)) >= len(set(counters + reversed_counters)) - 1
    np.testing.assert_array_equal(hashes(pa.array(counters[::-1])), found[: len(counters)][::-1])
    np.testing.assert_array_equal(hashes(pa.chunked_array([counters[:3], [], counters[3:9]])), found[:9])
    assert len(hashes(pa.array(["short", "1" * 40, *counters[:2]]))) == 4
