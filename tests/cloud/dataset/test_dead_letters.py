"""Rules of cloud/dataset/dead_letters.py, on real tables."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable, StoredRow, rows_to_drop
from cloud.dataset.table.durable_commit import manifest_name
from schemas.errors import PermanentError, TransientError

UNBOUNDED = Bounds(1000, 100_000_000)


def dead_letter(
    number: int, *, size_bytes: int = 100, at_ms: int | None = None, **fields: object
) -> DeadLetter:
    facts: dict[str, object] = {
        "photo_id": f"{number:032x}",
        "node": "edge-1",
        "reason": f"reason {number}",
        "received_at_ms": number if at_ms is None else at_ms,
        "payload": number.to_bytes(4) + os.urandom(size_bytes - 4),
    }
    return DeadLetter(**(facts | fields))  # type: ignore[arg-type]  # fields are checked by the tests


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset.lance"


def numbers(table: DeadLetterTable) -> list[int]:
    return [int(message.reason.removeprefix("reason ")) for message in table.newest(1000)]


def disk_bytes(table: DeadLetterTable) -> int:
    assert table.table.root is not None
    return sum(path.stat().st_size for path in table.table.root.rglob("*") if path.is_file())


def test_table_is_beside_the_dataset(dataset):
    """The folder is the dataset's with the suffix `-quarantine`, which earlier versions wrote too."""
    table = DeadLetterTable.open(f"{dataset}/")
    assert table.table.root == dataset.with_name("dataset.lance-quarantine")
    assert not dataset.exists()
    with pytest.raises(PermanentError, match="no dataset at"):
        DeadLetterTable.open(dataset.with_name("other"), create=False)


def test_messages_are_read_back_newest_first(dataset):
    """Payload, node, reason and time come back unchanged."""
    messages = [dead_letter(number) for number in range(3)]
    DeadLetterTable.open(dataset).put(messages, UNBOUNDED)
    table = DeadLetterTable.open(dataset, create=False)
    assert list(table.newest(99)) == messages[::-1]
    assert list(table.newest(1)) == messages[2:]


def test_unreadable_table_is_a_transient_error(dataset):
    """A missing file raises TransientError, because it may come back."""
    table = DeadLetterTable.open(dataset)
    table.put([dead_letter(1)], UNBOUNDED)
    for file in (table.table.root / "data").iterdir():
        file.unlink()
    with pytest.raises(TransientError, match="cannot be read"):
        list(table.newest(1))


def test_g4_message_without_an_id_is_keyed_by_its_digest(dataset):
    """Equal payloads without an id are one row, different payloads two."""
    table = DeadLetterTable.open(dataset)
    one, other = (dead_letter(number, photo_id=None, size_bytes=8) for number in (1, 2))
    for message in (one, other, one):
        table.put([message, message], UNBOUNDED)
    assert [message.photo_id for message in table.newest(9)] == [other.key, one.key]


def test_g4_redelivered_sample_is_kept_once(dataset):
    """Of messages with the same id the first is kept, in one call and in several."""
    table = DeadLetterTable.open(dataset)
    table.put([dead_letter(1, at_ms=1), dead_letter(1, at_ms=2)], UNBOUNDED)
    version = table.table.open_version().version
    assert table.put([dead_letter(1, at_ms=3)], UNBOUNDED) == 0
    assert [message.received_at_ms for message in table.newest(9)] == [1]
    assert table.table.open_version().version == version


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=40),
    st.integers(1, 20),
    st.integers(40, 400),
)
def test_oldest_rows_are_dropped_down_to_three_quarters(rows, max_rows, max_bytes):
    """Nothing is dropped within the bounds; else as many of the newest rows stay as three quarters allow."""
    stored = [StoredRow(at_ms, f"{number:032x}", size) for number, (at_ms, size) in enumerate(rows)]
    dropped = rows_to_drop(stored, Bounds(max_rows, max_bytes))
    left = sorted(set(stored) - set(dropped), reverse=True)
    if len(stored) <= max_rows and sum(row.size_bytes for row in stored) <= max_bytes:
        assert dropped == []
    else:
        assert len(left) <= max_rows * 0.75
        assert sum(row.size_bytes for row in left) <= max_bytes * 0.75
        assert dropped == sorted(dropped, reverse=True)
        assert all(old < new for old in dropped for new in left)
        more = [*left, dropped[0]]
        too_many = len(more) > max_rows * 0.75
        assert too_many or sum(row.size_bytes for row in more) > max_bytes * 0.75


def test_g3_table_is_bounded_in_rows(dataset):
    """Above the bound the oldest rows are dropped and counted."""
    table, bounds = DeadLetterTable.open(dataset), Bounds(8, 100_000_000)
    dropped = [table.put([dead_letter(number)], bounds) for number in range(12)]
    assert sum(dropped) == 6
    assert numbers(table) == [11, 10, 9, 8, 7, 6]
    table.put([dead_letter(number) for number in range(20, 40)], bounds)
    assert numbers(table) == [39, 38, 37, 36, 35, 34]


def test_g3_table_is_bounded_in_bytes_on_disk(dataset, monkeypatch):
    """The folder stays near the bound, because compaction removes dropped rows from the disk."""
    monkeypatch.setattr("cloud.dataset.dead_letters._VERSIONS_KEPT_S", 0.0)
    table, bounds = DeadLetterTable.open(dataset), Bounds(1000, 1_000_000)
    sizes = []
    for number in range(60):
        table.put([dead_letter(number, size_bytes=100_000)], bounds)
        sizes.append(disk_bytes(table))
    assert 5 <= len(numbers(table)) <= 10
    assert numbers(table)[0] == 59
    assert max(sizes) < 2_500_000


def test_g3_small_fragments_are_compacted(dataset, monkeypatch):
    """The number of files does not grow with the number of commits."""
    monkeypatch.setattr("cloud.dataset.dead_letters._VERSIONS_KEPT_S", 0.0)
    monkeypatch.setattr("cloud.dataset.dead_letters._FRAGMENTS", 4)
    table = DeadLetterTable.open(dataset)
    for number in range(20):
        table.put([dead_letter(number)], UNBOUNDED)
    assert table.table.small_fragments() <= 5
    assert numbers(table) == list(range(19, -1, -1))


def test_concurrent_collectors_keep_each_message_once(dataset):
    """Concurrent writers lose no message and store none twice."""

    def write(_: int) -> None:
        table = DeadLetterTable.open(dataset)
        for number in range(10):
            table.put([dead_letter(number)], UNBOUNDED)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert numbers(DeadLetterTable.open(dataset)) == list(range(9, -1, -1))


def test_deletion_files_are_synced_before_the_version_is_visible(dataset, monkeypatch):
    """A version that refers to a deletion file lost in a power cut would make the table unreadable."""
    table = DeadLetterTable.open(dataset)
    table.put([dead_letter(number) for number in range(4)], UNBOUNDED)
    root, version = table.table.root, table.table.open_version().version
    published, real = root / "_versions" / manifest_name(version + 1), os.fsync
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((str(path.relative_to(root.resolve())), published.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    table._drop(StoredRow(1, f"{1:032x}", 0))
    assert numbers(table) == [3, 2]
    marks = {str(path.relative_to(root)) for path in (root / "_deletions").iterdir()}
    assert marks
    assert {path for path, visible in synced if not visible} == {*marks, "_deletions"}
    assert f"_versions/{published.name}" in {path for path, visible in synced if visible}
