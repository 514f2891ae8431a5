"""Rules of cloud/dataset/dead_letters.py, on real tables."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable, StoredRow, rows_to_drop
from cloud.dataset.durable_commit import manifest_name
from schemas.errors import PermanentError, TransientError

AMPLE = Bounds(1000, 100_000_000)


def refused(number: int, *, size_bytes: int = 100, at_ms: int | None = None, **fields: object) -> DeadLetter:
    facts: dict[str, object] = {
        "photo_id": f"{number:032x}",
        "node": "edge-1",
        "reason": f"reason {number}",
        "received_at_ms": number if at_ms is None else at_ms,
        "payload": number.to_bytes(4) + os.urandom(size_bytes - 4),
    }
    return DeadLetter(**(facts | fields))  # type: ignore[arg-type]  # a test's own words


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset.lance"


def numbers(dead_letters: DeadLetterTable) -> list[int]:
    return [int(message.reason.removeprefix("reason ")) for message in dead_letters.newest(1000)]


def disk_bytes(dead_letters: DeadLetterTable) -> int:
    assert dead_letters.table.root is not None
    return sum(path.stat().st_size for path in dead_letters.table.root.rglob("*") if path.is_file())


def test_it_stands_beside_the_dataset(dataset):
    """Its folder has the dataset's name, so that whoever has the one finds the other."""
    dead_letters = DeadLetterTable.open(f"{dataset}/")
    assert dead_letters.table.root == dataset.with_name("dataset.lance-quarantine")
    assert not dataset.exists()
    with pytest.raises(PermanentError, match="none there"):
        DeadLetterTable.open(dataset.with_name("other"), create=False)


def test_what_was_put_is_read_back_newest_first(dataset):
    """Payload, node, reason and time come back unchanged."""
    messages = [refused(number) for number in range(3)]
    DeadLetterTable.open(dataset).put(messages, AMPLE)
    dead_letters = DeadLetterTable.open(dataset, create=False)
    assert list(dead_letters.newest(99)) == messages[::-1]
    assert list(dead_letters.newest(1)) == messages[2:]


def test_one_that_cannot_be_read_is_said_in_a_sentence(dataset):
    """A file that is away may come back."""
    dead_letters = DeadLetterTable.open(dataset)
    dead_letters.put([refused(1)], AMPLE)
    for file in (dead_letters.table.root / "data").iterdir():
        file.unlink()
    with pytest.raises(TransientError, match="expected to be readable"):
        list(dead_letters.newest(1))


def test_g4_a_message_without_an_id_is_kept_under_its_digest(dataset):
    """The same bytes sent again are one row, other bytes another."""
    dead_letters = DeadLetterTable.open(dataset)
    one, other = (refused(number, photo_id=None, size_bytes=8) for number in (1, 2))
    for message in (one, other, one):
        dead_letters.put([message, message], AMPLE)
    assert [message.photo_id for message in dead_letters.newest(9)] == [other.key, one.key]


def test_g4_a_sample_sent_again_is_kept_once(dataset):
    """Of messages with one id the first is kept, in one call and in several."""
    dead_letters = DeadLetterTable.open(dataset)
    dead_letters.put([refused(1, at_ms=1), refused(1, at_ms=2)], AMPLE)
    version = dead_letters.table.open_version().version
    assert dead_letters.put([refused(1, at_ms=3)], AMPLE) == 0
    assert [message.received_at_ms for message in dead_letters.newest(9)] == [1]
    assert dead_letters.table.open_version().version == version


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=40),
    st.integers(1, 20),
    st.integers(40, 400),
)
def test_the_oldest_go_and_what_stays_is_within_the_bounds(rows, most_rows, most_bytes):
    """Nothing goes while the bounds hold; else what stays is the newest part, and no row too few."""
    kept = [StoredRow(at_ms, f"{number:032x}", size) for number, (at_ms, size) in enumerate(rows)]
    gone = rows_to_drop(kept, Bounds(most_rows, most_bytes))
    left = sorted(set(kept) - set(gone), reverse=True)
    if len(kept) <= most_rows and sum(row.size_bytes for row in kept) <= most_bytes:
        assert gone == []
    else:
        assert len(left) <= most_rows * 0.75
        assert sum(row.size_bytes for row in left) <= most_bytes * 0.75
        assert gone == sorted(gone, reverse=True)
        assert all(old < new for old in gone for new in left)
        more = [*left, gone[0]]
        too_many = len(more) > most_rows * 0.75
        assert too_many or sum(row.size_bytes for row in more) > most_bytes * 0.75


def test_g3_it_is_bounded_in_rows(dataset):
    """Above the bound the oldest go, and are counted."""
    dead_letters, bounds = DeadLetterTable.open(dataset), Bounds(8, 100_000_000)
    dropped = [dead_letters.put([refused(number)], bounds) for number in range(12)]
    assert sum(dropped) == 6
    assert numbers(dead_letters) == [11, 10, 9, 8, 7, 6]
    dead_letters.put([refused(number) for number in range(20, 40)], bounds)
    assert numbers(dead_letters) == [39, 38, 37, 36, 35, 34]


def test_g3_it_is_bounded_in_bytes_on_the_disk(dataset, monkeypatch):
    """However much arrives, the folder stays near the bound: dropped rows are rewritten away."""
    monkeypatch.setattr("cloud.dataset.dead_letters._VERSIONS_KEPT_S", 0.0)
    dead_letters, bounds = DeadLetterTable.open(dataset), Bounds(1000, 1_000_000)
    sizes = []
    for number in range(60):
        dead_letters.put([refused(number, size_bytes=100_000)], bounds)
        sizes.append(disk_bytes(dead_letters))
    assert 5 <= len(numbers(dead_letters)) <= 10
    assert numbers(dead_letters)[0] == 59
    assert max(sizes) < 2_500_000


def test_g3_small_fragments_are_joined(dataset, monkeypatch):
    """Many small commits do not become ever more files."""
    monkeypatch.setattr("cloud.dataset.dead_letters._VERSIONS_KEPT_S", 0.0)
    monkeypatch.setattr("cloud.dataset.dead_letters._FRAGMENTS", 4)
    dead_letters = DeadLetterTable.open(dataset)
    for number in range(20):
        dead_letters.put([refused(number)], AMPLE)
    assert dead_letters.table.small_fragments() <= 5
    assert numbers(dead_letters) == list(range(19, -1, -1))


def test_several_collectors_keep_each_message_once(dataset):
    """Writers at once lose nothing and keep nothing twice."""

    def write(_: int) -> None:
        dead_letters = DeadLetterTable.open(dataset)
        for number in range(10):
            dead_letters.put([refused(number)], AMPLE)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert numbers(DeadLetterTable.open(dataset)) == list(range(9, -1, -1))


def test_marks_of_deletion_are_on_disk_before_the_version_is_visible(dataset, monkeypatch):
    """A version that refers to a file which a power loss took away would make the table unreadable."""
    dead_letters = DeadLetterTable.open(dataset)
    dead_letters.put([refused(number) for number in range(4)], AMPLE)
    root, version = dead_letters.table.root, dead_letters.table.open_version().version
    published, real = root / "_versions" / manifest_name(version + 1), os.fsync
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((str(path.relative_to(root.resolve())), published.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    dead_letters._drop(dead_letters.table.open_version(), StoredRow(1, f"{1:032x}", 0))
    assert numbers(dead_letters) == [3, 2]
    marks = {str(path.relative_to(root)) for path in (root / "_deletions").iterdir()}
    assert marks
    assert {path for path, visible in synced if not visible} == {*marks, "_deletions"}
    assert f"_versions/{published.name}" in {path for path, visible in synced if visible}
