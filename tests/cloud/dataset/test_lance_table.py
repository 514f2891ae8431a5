"""Rules of cloud/dataset/lance_table.py: location, schema and compaction of a table."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from cloud.dataset.lance_table import Table
from cloud.dataset.schema import SCHEMA
from cloud.dataset.store import Store
from schemas.errors import PermanentError, TransientError
from tests.cloud.dataset.test_store import photo, photo_id, read, said


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def test_a_table_of_another_layout_is_refused(tmp_path: Path) -> None:
    """Opening what is no dataset of ours says so and changes nothing."""
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "other"))
    with pytest.raises(PermanentError, match="expected columns"):
        Store.open(tmp_path / "other")
    assert lance.dataset(str(tmp_path / "other")).count_rows() == 1


def test_a_table_of_an_earlier_layout_is_brought_up_to_date(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that came later is added on opening, null in older rows; two who open at once add it once."""
    store.upsert([photo(1)])
    store.tag("v1")
    later = SCHEMA.append(pa.field("weather", pa.string())).append(pa.field("tilt", pa.float32()))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Table.open(store.table.url, later), range(4)))
    monkeypatch.setattr("cloud.dataset.store.SCHEMA", later)
    assert store.upsert([photo(1), photo(2)]) == {photo_id(1): "duplicate", photo_id(2): "stored"}
    assert store.label([said(1, "dog", 5)]) == {photo_id(1): "stored"}
    assert read(store, 1, "weather", "tilt", "human_label") == [None, None, "dog"]
    assert store.count(version="v1") == 1


def test_a_table_of_a_later_layout_is_refused(store: Store) -> None:
    """Columns that this version does not know are left alone: it says so instead of writing around them."""
    later = SCHEMA.append(pa.field("weather", pa.string()))
    Table.open(store.table.url, later)
    with pytest.raises(PermanentError, match=r"got others, maybe of a later version: \['weather'\]"):
        Store.open(store.table.url)
    retyped = pa.schema(
        [field if field.name != "width" else pa.field("width", pa.int64()) for field in SCHEMA]
    )
    with pytest.raises(PermanentError, match="'width'"):
        Table.open(store.table.url, retyped)


def test_a_dataset_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    """Reading from a misspelt path is an error and leaves nothing behind."""
    (tmp_path / "photos").mkdir()
    for name in ("none", "photos"):
        with pytest.raises(PermanentError, match="expected a dataset, got none there"):
            Store.open(tmp_path / name, create=False)
    assert [path for path in tmp_path.rglob("*") if path.name != "photos"] == []
    Store.open(tmp_path / "table")
    assert Store.open(tmp_path / "table", create=False).count() == 0


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("nowhere://bucket/table", PermanentError, "expected a folder or URL, got .*scheme: 'nowhere'"),
        (__file__, PermanentError, "expected a folder or URL, got .*File exists"),
        (f"{__file__}/table", PermanentError, "expected a folder or URL, got .*Not a directory"),
        ("/proc/table", TransientError, "expected a place to read and write, got .*No such file"),
    ],
)
def test_an_impossible_place_is_one_sentence(url: str, kind: type[Exception], words: str) -> None:
    """Whatever cannot hold a table is said in one line, without the inside of a library."""
    with pytest.raises(kind, match=words) as refusal:
        Store.open(url)
    assert "\n" not in str(refusal.value)
    assert ".rs:" not in str(refusal.value)


def test_a_dataset_that_is_gone_is_waited_for(store: Store, tmp_path: Path) -> None:
    """A table taken away is no new empty one: writing fails for now, and goes on when it is back."""
    store.upsert([photo(1)])
    table, aside = Path(store.table.url), tmp_path / "aside"
    table.rename(aside)
    for prepared in (lambda: None, table.mkdir):  # nothing there, then an empty mount point
        prepared()
        with pytest.raises(TransientError):
            store.upsert([photo(2)])
        with pytest.raises(TransientError):
            store.table.small_fragments()
    (table / "_writer.lock").unlink()
    table.rmdir()
    aside.rename(table)
    assert store.upsert([photo(1), photo(2)]) == {photo_id(1): "duplicate", photo_id(2): "stored"}


def test_full_fragments_are_not_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compaction would leave alone is no reason for one, however large the dataset is."""
    monkeypatch.setattr("cloud.dataset.lance_table._ROWS_PER_FRAGMENT", 4)
    for start in range(0, 10, 2):
        store.upsert([photo(start), photo(start + 1)])
    assert store.table.small_fragments() == 5
    store.table.compact()
    assert store.table.small_fragments() == 0 < len(store.table.open_version().get_fragments())


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
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
def test_what_cannot_be_read_is_an_error_to_try_again(
    store: Store, attempt: Callable[[Store], object]
) -> None:
    """A file that is away or torn is one sentence, and when it is back all is as before."""
    store.upsert([photo(1)])
    before = attempt(store)
    (data,) = Path(store.table.url, "data").iterdir()
    content = data.read_bytes()
    data.unlink()
    with pytest.raises(
        TransientError, match=r"photos.lance: expected to be readable, got .*Not found: [^,]*$"
    ):
        attempt(Store.open(store.table.url))
    data.write_bytes(content[:100])
    with pytest.raises(TransientError, match="expected to be readable"):
        attempt(Store.open(store.table.url))
    data.write_bytes(content)
    assert attempt(Store.open(store.table.url)) == before


def test_a_condition_that_is_none_is_no_trouble_of_the_disk(store: Store) -> None:
    """To try it again would help nobody."""
    store.upsert([photo(1)])
    with pytest.raises(ValueError, match="No field named weather"):
        store.count("weather = 'wet'")
    with pytest.raises(ValueError, match="No field named weather"):
        list(store.scan(["photo_id"], where="weather = 'wet'"))
