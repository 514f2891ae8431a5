"""Rules of cloud/dataset/table/lance_table.py: location, schema and compaction of a table."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from cloud.dataset.schema import SCHEMA
from cloud.dataset.store import Store
from cloud.dataset.table.lance_table import Table
from schemas.errors import PermanentError, TransientError
from tests.cloud.dataset.test_store import label, photo, photo_id, read


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def test_foreign_table_is_refused(tmp_path: Path) -> None:
    """Opening a Lance table of another program raises and changes nothing."""
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "other"))
    with pytest.raises(PermanentError, match=r"columns \['x'\] are unknown to this version"):
        Store.open(tmp_path / "other")
    assert lance.dataset(str(tmp_path / "other")).count_rows() == 1


def test_missing_columns_are_added_on_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer column is added on opening, null in older rows; concurrent openings add it once."""
    store.upsert([photo(1)])
    store.tag("v1")
    later = SCHEMA.append(pa.field("weather", pa.string())).append(pa.field("tilt", pa.float32()))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Table.open(store.table.url, later), range(4)))
    monkeypatch.setattr("cloud.dataset.store.SCHEMA", later)
    assert store.upsert([photo(1), photo(2)]) == {photo_id(1): "duplicate", photo_id(2): "stored"}
    assert store.label([label(1, "dog", 5)]) == {photo_id(1): "stored"}
    assert read(store, 1, "weather", "tilt", "human_label") == [None, None, "dog"]
    assert store.count(version="v1") == 1


def test_table_of_a_newer_version_is_refused(store: Store) -> None:
    """A table with unknown or retyped columns is refused, not written to."""
    later = SCHEMA.append(pa.field("weather", pa.string()))
    Table.open(store.table.url, later)
    with pytest.raises(
        PermanentError, match=r"columns \['weather'\] are unknown to this .*; upgrade gleaner"
    ):
        Store.open(store.table.url)
    retyped = pa.schema(
        [field if field.name != "width" else pa.field("width", pa.int64()) for field in SCHEMA]
    )
    with pytest.raises(PermanentError, match="'width'"):
        Table.open(store.table.url, retyped)


def test_missing_dataset_is_not_created_for_reading(tmp_path: Path) -> None:
    """Opening a misspelt path for reading raises and creates nothing."""
    (tmp_path / "photos").mkdir()
    for name in ("none", "photos"):
        with pytest.raises(PermanentError, match=r"no dataset at .*; check the path"):
            Store.open(tmp_path / name, create=False)
    assert [path for path in tmp_path.rglob("*") if path.name != "photos"] == []
    Store.open(tmp_path / "table")
    assert Store.open(tmp_path / "table", create=False).count() == 0


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("nowhere://bucket/table", PermanentError, "not a folder or URL for a table: .*scheme: 'nowhere'"),
        (__file__, PermanentError, "not a folder or URL for a table: .*File exists"),
        (f"{__file__}/table", PermanentError, "not a folder or URL for a table: .*Not a directory"),
        ("/proc/table", TransientError, "cannot be opened: .*No such file"),
    ],
)
def test_impossible_location_is_one_sentence(url: str, kind: type[Exception], words: str) -> None:
    """The error for a location that cannot hold a table is one line, without positions in a library."""
    with pytest.raises(kind, match=words) as refusal:
        Store.open(url)
    assert "\n" not in str(refusal.value)
    assert ".rs:" not in str(refusal.value)


def test_a_full_disk_is_named_when_a_table_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that the table is missing, which is why it is created."""

    def full(*_: object, **__: object) -> None:
        raise OSError("LanceError(IO): Unable to copy data to file: No space left on device (os error 28)")

    monkeypatch.setattr(lance, "write_dataset", full)
    with pytest.raises(
        TransientError, match=r"cannot be opened: .*No space left.*; free space on that disk$"
    ):
        Store.open(tmp_path / "new.lance")
    monkeypatch.undo()
    assert Store.open(tmp_path / "new.lance").count() == 0


def test_vanished_dataset_is_a_transient_error(store: Store, tmp_path: Path) -> None:
    """A table that vanished is not created again: writes raise TransientError until it is back."""
    store.upsert([photo(1)])
    table, aside = Path(store.table.url), tmp_path / "aside"
    table.rename(aside)
    for prepare in (lambda: None, table.mkdir):  # first no folder, then an empty mount point
        prepare()
        with pytest.raises(TransientError):
            store.upsert([photo(2)])
        with pytest.raises(TransientError):
            store.table.small_fragments()
    (table / "_writer.lock").unlink()
    table.rmdir()
    aside.rename(table)
    assert store.upsert([photo(1), photo(2)]) == {photo_id(1): "duplicate", photo_id(2): "stored"}


def test_full_fragments_are_not_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fragments that a compaction would leave alone do not count, so that they never trigger one."""
    monkeypatch.setattr("cloud.dataset.table.lance_table._ROWS_PER_FRAGMENT", 4)
    for start in range(0, 10, 2):
        store.upsert([photo(start), photo(start + 1)])
    assert store.table.small_fragments() == 5
    store.table.compact()
    assert store.table.small_fragments() == 0 < len(store.table.open_version().get_fragments())


def test_file_url_is_a_local_path(tmp_path: Path) -> None:
    """file:// names the same table as the path, with the same lock."""
    store = Store.open(f"file://{tmp_path}/a%20table")
    store.upsert([photo(1)])
    assert Store.open(tmp_path / "a table").count() == 1


READS = {
    "scan": lambda store: list(store.scan(["photo_id", "image"])),
    "count": lambda store: store.count("lane = 'audit'"),
    "find": lambda store: store.find([photo_id(1)], ["image"]),
    "upsert": lambda store: store.upsert([photo(1)]),
}


@pytest.mark.parametrize("attempt", READS.values(), ids=READS)
def test_unreadable_file_is_a_transient_error(store: Store, attempt: Callable[[Store], object]) -> None:
    """A missing or truncated file is a TransientError of one line; when it is back, reads succeed."""
    store.upsert([photo(1)])
    before = attempt(store)
    (data,) = Path(store.table.url, "data").iterdir()
    content = data.read_bytes()
    data.unlink()
    with pytest.raises(TransientError, match=r"photos.lance cannot be read: .*Not found: [^,]*$"):
        attempt(Store.open(store.table.url))
    data.write_bytes(content[:100])
    with pytest.raises(TransientError, match="cannot be read"):
        attempt(Store.open(store.table.url))
    data.write_bytes(content)
    assert attempt(Store.open(store.table.url)) == before


def test_invalid_condition_is_a_value_error(store: Store) -> None:
    """An invalid SQL condition is not reported as a transient error."""
    store.upsert([photo(1)])
    with pytest.raises(ValueError, match="No field named weather"):
        store.count("weather = 'wet'")
    with pytest.raises(ValueError, match="No field named weather"):
        list(store.scan(["photo_id"], where="weather = 'wet'"))
