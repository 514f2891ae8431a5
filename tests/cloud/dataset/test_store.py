"""Rules of cloud/dataset/store.py, on real tables and with real processes."""

import collections
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import pytest

from cloud.dataset.rows.forgotten import barrier_id
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.lance_table import Table
from schemas.codec import content_id
from schemas.errors import PermanentError
from tests.conftest import DEADLINE_S

REPOSITORY = Path(__file__).parents[3]


def photo_id(number: int) -> str:
    return f"{number:032x}"


def photo(number: int, *, size_bytes: int = 100, **fields: object) -> Row:
    known = {
        "image": bytes([number % 256]) * size_bytes,
        "width": 4,
        "height": 3,
        "received_at_ms": 1,
        "node": "edge-1",
        "device": "pi-1",
    }
    return Row(photo_id=photo_id(number), **(known | fields))  # type: ignore[arg-type]


def label(number: int, name: str, at_ms: int, **fields: object) -> Label:
    return Label(photo_id=photo_id(number), label=name, by="ann", at_ms=at_ms, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def read(store: Store, number: int, *columns: str) -> list[object]:
    row = store.find([photo_id(number)], columns)[photo_id(number)]
    return [row[column] for column in columns]


def test_every_field_is_read_back(store: Store) -> None:
    """A stored row is read back unchanged; the embedding as numbers."""
    row = photo(
        1,
        taken_at_ms=5,
        dhash="0123456789abcdef",
        lane="auto",
        edge_label="cat",
        confidence=0.75,
        scores={"cat": 0.75, "dog": 0.25},
        model="pets",
        model_version=3,
        embedding=b"\0\0\x80?\0\0\0@",
        teacher_label="cat",
        teacher_by="vit",
        teacher_at_ms=6,
    )
    assert store.upsert([row]) == {row.photo_id: "stored"}
    (found,) = store.scan(lance.dataset(store.table.url).schema.names)
    assert found.pop("embedding") == [1.0, 2.0]
    assert found.pop("scores") == [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}]
    assert found.pop("revision") == 1
    assert found == {name: getattr(row, name) for name in found}


def test_storing_again_changes_nothing(store: Store) -> None:
    """A redelivered sample is a duplicate and makes no version; an id twice in a call is stored once."""
    assert store.upsert([photo(1), photo(2), photo(1, size_bytes=7)]) == {
        photo_id(1): "stored",
        photo_id(2): "stored",
    }
    version = store.version
    assert set(store.upsert([photo(1, size_bytes=7), photo(2)]).values()) == {"duplicate"}
    assert store.upsert([]) == {}
    assert (store.version, store.count()) == (version, 2)
    assert len(str(read(store, 1, "image")[0])) > 100


def test_label_before_its_photo_is_kept(store: Store) -> None:
    """A label without its photo is stored as waiting, not counted as a photo, and on the photo later."""
    assert store.label([label(1, "dog", 5)]) == {photo_id(1): "waiting"}
    assert store.count() == 0
    assert list(store.scan(["photo_id"])) == []
    assert store.upsert([photo(1, edge_label="cat")]) == {photo_id(1): "stored"}
    assert read(store, 1, "human_label", "human_by", "edge_label") == ["dog", "ann", "cat"]
    assert store.upsert([photo(1)]) == {photo_id(1): "duplicate"}
    assert store.count("true") == 1


def test_later_label_wins_in_any_order(store: Store) -> None:
    """Of each annotator kind the latest label is kept; redelivery changes nothing; the image stays."""
    store.upsert([photo(1)])
    assert store.label([label(1, "dog", 5)]) == {photo_id(1): "stored"}
    assert store.label([label(1, "dog", 5)]) == {photo_id(1): "superseded"}
    assert store.label([label(1, "cat", 4)]) == {photo_id(1): "superseded"}
    assert store.label([label(1, "cow", 9), label(1, "hen", 8)]) == {photo_id(1): "stored"}
    assert store.label([label(1, "cat", 1, annotator="teacher")]) == {photo_id(1): "stored"}
    columns = ("human_label", "human_at_ms", "teacher_label", "image")
    assert read(store, 1, *columns) == ["cow", 9, "cat", b"\1" * 100]


def test_human_and_teacher_label_in_one_call(store: Store) -> None:
    """A human and a teacher label for one id are both stored, before the photo and after it."""
    for at_ms in (1, 2):
        store.label([label(1, f"h{at_ms}", at_ms), label(1, f"t{at_ms}", at_ms, annotator="teacher")])
        assert read(store, 1, "human_label", "teacher_label") == [f"h{at_ms}", f"t{at_ms}"]
        store.upsert([photo(1)])


def test_tagged_version_survives_compaction_and_clean_up(store: Store) -> None:
    """A tagged version is readable after compaction and clean-up; untagged old ones are removed."""
    store.upsert([photo(1)])
    assert store.tag("v1") == store.tag("v1") == store.tags()["v1"]
    for number in range(2, 8):
        store.upsert([photo(number)])
    store.label([label(1, "dog", 5)])
    untagged = store.version
    assert store.table.compact().fragments_added == 1
    assert store.table.small_fragments() == 1
    assert store.table.clean_up(older_than_s=0) > 5
    assert store.count(version="v1") == 1
    assert store.count() == 7
    assert [row["human_label"] for row in store.scan(["human_label"], version="v1")] == [None]
    with pytest.raises(PermanentError, match="no version"):
        store.count(version=untagged)
    with pytest.raises(PermanentError, match="tag 'v1': taken by version"):
        store.tag("v1")


def test_trainings_that_begin_at_once_mark_the_dataset(store: Store) -> None:
    """On an object store, without a lock, the one that comes second continues; the mark outlives a purge."""
    store.upsert([photo(1)])
    assert not store.is_trained()
    with ThreadPoolExecutor(4) as pool:
        for begun in [pool.submit(Store(Table(store.table.url, None)).mark_trained) for _ in range(4)]:
            begun.result()
    store.purge()
    assert store.is_trained()


def test_scan_by_condition_columns_and_limit(store: Store) -> None:
    """A scan returns the given columns of the rows that meet the condition, up to the limit."""
    store.upsert([photo(number, confidence=number / 10) for number in range(10)])
    sure = store.scan(["photo_id"], where="confidence > 0.65")
    assert sorted(str(row["photo_id"]) for row in sure) == [photo_id(number) for number in (7, 8, 9)]
    assert len(list(store.scan(["confidence"], limit=4))) == 4
    assert store.find([photo_id(3), photo_id(77)], ["width"]) == {
        photo_id(3): {"photo_id": photo_id(3), "width": 4}
    }


def test_lookup_reads_images_only_where_needed(store: Store) -> None:
    """Detecting duplicates reads no image; labelling a photo reads only the image of that photo."""
    # Noise, which Lance cannot compress.
    store.upsert([photo(number, image=random.Random(number).randbytes(50_000)) for number in range(64)])
    ids = [photo_id(number) for number in range(64)]
    dataset = store.table.open_version()
    holding = store.table.may_hold(dataset, ids)
    dataset.io_stats_incremental()
    assert len(store.table.read_rows(dataset, holding, ids, ["photo_id", "received_at_ms"])) == 64
    assert dataset.io_stats_incremental().read_bytes < 50_000
    assert len(str(store.table.read_rows(dataset, holding, ids[:1], ["image"]))) > 50_000
    assert dataset.io_stats_incremental().read_bytes < 5 * 50_000


def test_compaction_yields_to_a_writer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite whose rows were labelled since is dropped and counted as a conflict; the label stays."""
    for number in range(3):
        store.upsert([photo(number)])
    real = lance.optimize.Compaction.commit

    def label_then_commit(*arguments: object) -> object:
        # This thread holds the lock: write as a process without it would.
        Store(Table(store.table.url, None)).label([label(1, "dog", 5)])
        return real(*arguments)

    monkeypatch.setattr(lance.optimize.Compaction, "commit", label_then_commit)
    assert store.table.compact().conflicts == 1
    monkeypatch.undo()
    assert store.table.compact().conflicts == 0
    assert (read(store, 1, "human_label"), store.count(), store.table.small_fragments()) == (["dog"], 3, 1)


def test_importing_the_store_loads_no_tensorflow() -> None:
    """A collector does not load the trainer's libraries."""
    code = (
        "import sys, cloud.dataset.store, cloud.dataset.training_set\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# One writer: opens the table, which may not exist yet, and stores the batches that it reads from its input.
# After each commit it prints the outcomes as a line. In between it labels and compacts.
WRITER = """
import json, sys
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.lance_table import Table
url, locked, seed = sys.argv[1], sys.argv[2] == "locked", int(sys.argv[3])
store = Store.open(url)
if not locked:
    store = Store(Table(url, None))
for line in sys.stdin:
    size = {"width": 1, "height": 1}
    rows = [Row(photo_id=key, image=b"x" * 2000, received_at_ms=seed, **size) for key in json.loads(line)]
    print(json.dumps(store.upsert(rows)), flush=True)
    store.label([Label(photo_id=row.photo_id, label=str(seed), by="w", at_ms=seed) for row in rows[:2]])
    if locked and seed == 3:
        store.table.compact()
"""


def _writer(url: Path, locked: str, seed: int, batches: list[list[str]]) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(url), locked, str(seed)]
    writer = subprocess.Popen(
        arguments, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    writer.stdin.write("".join(json.dumps(batch) + "\n" for batch in batches))
    writer.stdin.close()
    return writer


def _batches(ids: list[str], seed: int) -> Iterator[list[str]]:
    """Cut the ids into batches, for each writer in nearly the same order, so that the writers collide."""
    rng = random.Random(seed)
    order = sorted(range(len(ids)), key=lambda index: index + rng.uniform(0, 20))
    for start in range(0, len(ids), 8):
        yield [ids[index] for index in order[start : start + 8]]


@pytest.mark.parametrize("locked", ["locked", "unlocked"])
def test_g2_many_writers_store_each_photo_once(tmp_path: Path, locked: str) -> None:
    """G2: four processes store the same ids at once, one is killed with SIGKILL, and each id is stored once.

    `unlocked` leaves out the lock of local tables, as on an object store.
    """
    url, ids = tmp_path / "photos.lance", [photo_id(number) for number in range(120)]
    writers = [_writer(url, locked, seed, list(_batches(ids, seed))) for seed in range(4)]
    victim = writers[0]
    assert victim.stdout is not None
    answers = [json.loads(victim.stdout.readline()) for _ in range(5)]
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(DEADLINE_S) == -signal.SIGKILL
    answers += [json.loads(line) for line in victim.stdout]
    deadline_s = time.monotonic() + DEADLINE_S
    for writer in writers[1:]:
        assert writer.stdout is not None
        answers += [json.loads(line) for line in writer.stdout]
        assert writer.wait(max(0.1, deadline_s - time.monotonic())) == 0
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    store = Store.open(url)
    rows = list(store.scan(["photo_id", "image", "human_label", "received_at_ms"], where="true"))
    assert collections.Counter(str(row["photo_id"]) for row in rows) == dict.fromkeys(ids, 1)
    assert all(row["image"] == b"x" * 2000 for row in rows)
    assert any(row["human_label"] == "3" for row in rows)
    stored = collections.Counter(key for answer in answers for key in answer if answer[key] == "stored")
    if locked == "locked":
        # Each id is reported as `stored` once. Only the batch that the victim did not report may be missing.
        assert max(stored.values()) == 1
        assert len(stored) >= len(ids) - 8


def test_the_location_is_absolute_and_has_no_secret(tmp_path, monkeypatch):
    """Services publish it, so that different datasets are noticed; relative paths would be equal."""
    monkeypatch.chdir(tmp_path)
    assert Store.open("photos.lance").location == str(tmp_path / "photos.lance")
    assert Store.open((tmp_path / "photos.lance").as_uri()).location == str(tmp_path / "photos.lance")
    remote = Store(Table("s3://key:secret@bucket/photos.lance?token=secret", None))
    assert remote.location == "s3://***@bucket/photos.lance?token=***"


def test_no_message_takes_the_place_of_a_barrier(store: Store) -> None:
    """Who knows how the id of a barrier is made stops no collector, and keeps no photo of others out."""
    for node, device in (("edge-1", "pi-1"), ("edge-1", None), (None, None)):
        with pytest.raises(PermanentError):  # and so no sample: both have the id of a message
            Label(photo_id=barrier_id(node, device), label="cat", by="ann", at_ms=1)
        digest = content_id(f"forgotten {node or '*'}/{device or '*'}".encode())  # as it was once made
        store.label([Label(photo_id=digest, label="cat", by="ann", at_ms=1)])
    assert store.upsert([photo(1)], {photo_id(1): 5}) == {photo_id(1): "stored"}
    store.keep_out("edge-1", None, 10)
    assert store.upsert([photo(2)], {photo_id(2): 5}) == {photo_id(2): "forgotten"}
    assert store.upsert([photo(3)], {photo_id(3): 10}) == {photo_id(3): "stored"}
