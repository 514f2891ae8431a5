"""Rules of cloud/dataset/store.py, on real tables and with real processes."""

import collections
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lance
import pytest

from cloud.dataset.lance_table import Table
from cloud.dataset.schema import (
    SCHEMA,
    STATE_COLUMNS,
    LabelOutcome,
    Outcome,
    Record,
    with_labels,
    with_samples,
)
from cloud.dataset.store import Label, Row, Store
from schemas.errors import PermanentError

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


def said(number: int, label: str, at_ms: int, **fields: object) -> Label:
    return Label(photo_id=photo_id(number), label=label, by="ann", at_ms=at_ms, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def read(store: Store, number: int, *columns: str) -> list[object]:
    row = store.find([photo_id(number)], columns)[photo_id(number)]
    return [row[column] for column in columns]


def test_every_field_comes_back(store: Store) -> None:
    """What was stored is read back unchanged; the embedding as numbers."""
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
    """A sample sent again is a duplicate and makes no version; an id twice in a call is stored once."""
    assert store.upsert([photo(1), photo(2), photo(1, size_bytes=7)]) == {
        photo_id(1): "stored",
        photo_id(2): "stored",
    }
    version = store.version
    assert set(store.upsert([photo(1, size_bytes=7), photo(2)]).values()) == {"duplicate"}
    assert store.upsert([]) == {}
    assert (store.version, store.count()) == (version, 2)
    assert len(str(read(store, 1, "image")[0])) > 100


def test_a_label_before_its_photo_is_kept(store: Store) -> None:
    """A label whose photo is on its way waits, is no photo meanwhile, and is on the photo when it comes."""
    assert store.label([said(1, "dog", 5)]) == {photo_id(1): "waiting"}
    assert store.count() == 0
    assert list(store.scan(["photo_id"])) == []
    assert store.upsert([photo(1, edge_label="cat")]) == {photo_id(1): "stored"}
    assert read(store, 1, "human_label", "human_by", "edge_label") == ["dog", "ann", "cat"]
    assert store.upsert([photo(1)]) == {photo_id(1): "duplicate"}
    assert store.count("true") == 1


def test_the_later_label_holds_whatever_the_order(store: Store) -> None:
    """Of a judge's labels the one said last holds; resending changes nothing; the image stays."""
    store.upsert([photo(1)])
    assert store.label([said(1, "dog", 5)]) == {photo_id(1): "stored"}
    assert store.label([said(1, "dog", 5)]) == {photo_id(1): "superseded"}
    assert store.label([said(1, "cat", 4)]) == {photo_id(1): "superseded"}
    assert store.label([said(1, "cow", 9), said(1, "hen", 8)]) == {photo_id(1): "stored"}
    assert store.label([said(1, "cat", 1, annotator="teacher")]) == {photo_id(1): "stored"}
    columns = ("human_label", "human_at_ms", "teacher_label", "image")
    assert read(store, 1, *columns) == ["cow", 9, "cat", b"\1" * 100]


def test_two_judges_of_one_photo_in_one_call(store: Store) -> None:
    """A person's and a teacher's label for one id are both stored, before the photo and after."""
    for at_ms in (1, 2):
        store.label([said(1, f"h{at_ms}", at_ms), said(1, f"t{at_ms}", at_ms, annotator="teacher")])
        assert read(store, 1, "human_label", "teacher_label") == [f"h{at_ms}", f"t{at_ms}"]
        store.upsert([photo(1)])


def test_old_versions_and_tags_stay_readable(store: Store) -> None:
    """A tagged version reads as it was, through compaction and clean-up; untagged ones go."""
    store.upsert([photo(1)])
    assert store.tag("v1") == store.tag("v1") == store.tags()["v1"]
    for number in range(2, 8):
        store.upsert([photo(number)])
    store.label([said(1, "dog", 5)])
    untagged = store.version
    assert store.table.compact().fragments_added == 1
    assert store.table.small_fragments() == 1
    assert store.table.clean_up(older_than_s=0) > 5
    assert store.count(version="v1") == 1
    assert store.count() == 7
    assert [row["human_label"] for row in store.scan(["human_label"], version="v1")] == [None]
    with pytest.raises(PermanentError, match="expected one that exists"):
        store.count(version=untagged)
    with pytest.raises(PermanentError, match="tag v1"):
        store.tag("v1")


def test_conditions_columns_and_limits(store: Store) -> None:
    """A scan gives the columns asked for, of the rows that meet the condition, at most so many."""
    store.upsert([photo(number, confidence=number / 10) for number in range(10)])
    sure = store.scan(["photo_id"], where="confidence > 0.65")
    assert sorted(str(row["photo_id"]) for row in sure) == [photo_id(number) for number in (7, 8, 9)]
    assert len(list(store.scan(["confidence"], limit=4))) == 4
    assert store.find([photo_id(3), photo_id(77)], ["width"]) == {
        photo_id(3): {"photo_id": photo_id(3), "width": 4}
    }


def test_looking_up_ids_reads_no_images(store: Store) -> None:
    """To know a duplicate, and to label one photo, only ids and that photo's image are read."""
    # Noise, so that no encoding makes it smaller.
    store.upsert([photo(number, image=random.Random(number).randbytes(50_000)) for number in range(64)])
    ids = [photo_id(number) for number in range(64)]
    dataset = store.table.open_version()
    dataset.io_stats_incremental()
    assert len(store._lookup(dataset, ids, ["photo_id", "received_at_ms"])) == 64
    assert dataset.io_stats_incremental().read_bytes < 50_000
    assert len(str(store._lookup(dataset, ids[:1], ["image"]))) > 50_000
    assert dataset.io_stats_incremental().read_bytes < 5 * 50_000


def test_a_rewrite_gives_way_to_a_writer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction whose rows were labelled meanwhile is given up and counted; the label holds."""
    for number in range(3):
        store.upsert([photo(number)])
    real = lance.optimize.Compaction.commit

    def label_then_commit(*arguments: object) -> object:
        # In this thread the lock is held: write as a stranger to it would.
        Store(Table(store.table.url, None)).label([said(1, "dog", 5)])
        return real(*arguments)

    monkeypatch.setattr(lance.optimize.Compaction, "commit", label_then_commit)
    assert store.table.compact().conflicts == 1
    monkeypatch.undo()
    assert store.table.compact().conflicts == 0
    assert (read(store, 1, "human_label"), store.count(), store.table.small_fragments()) == (["dog"], 3, 1)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("first", ["photo", "label"])
def test_a_writer_that_was_second_decides_again(store: Store, first: str, indexed: bool) -> None:  # noqa: FBT001 - a parameter of the rule
    """Without a lock, whoever reads before and commits after another writer of the id reads anew.

    Somebody's index on the ids does not change that, though Lance's own check does not survive it.
    """
    store.upsert([photo(77)])
    if indexed:
        store.table.open_version().create_scalar_index("photo_id", "BTREE")
    unlocked, decisions = Store(Table(store.table.url, None)), list[int]()

    def decide(existing: dict[str, Record]) -> tuple[list[Record], dict[str, Outcome]]:
        if not decisions:
            _ = store.upsert([photo(1)]) if first == "photo" else store.label([said(1, "dog", 5)])
        decisions.append(len(existing))
        return with_samples({photo_id(1): photo(1, size_bytes=9)}, existing)

    outcome = unlocked._write([photo_id(1)], STATE_COLUMNS, decide)
    assert outcome == {photo_id(1): "duplicate" if first == "photo" else "stored"}
    assert decisions == [0, 1]
    assert store.count("true") == 2
    expected = (b"\1" * 100, None) if first == "photo" else (b"\1" * 9, "dog")
    assert tuple(read(store, 1, "image", "human_label")) == expected


def test_a_stored_row_is_not_overwritten_by_a_stale_one(store: Store) -> None:
    """Two labels decided on the same reading: the second to commit decides again and yields to time."""
    store.upsert([photo(1)])
    unlocked, decisions = Store(Table(store.table.url, None)), list[int]()

    def decide(existing: dict[str, Record]) -> tuple[list[Record], dict[str, LabelOutcome]]:
        if not decisions:
            store.label([said(1, "late", 9), said(1, "cow", 9, annotator="teacher")])
        decisions.append(existing[photo_id(1)]["revision"])
        return with_labels([said(1, "early", 5)], existing)

    assert unlocked._write([photo_id(1)], SCHEMA.names, decide) == {photo_id(1): "superseded"}
    assert decisions == [1, 2]
    assert read(store, 1, "human_label", "teacher_label", "image") == ["late", "cow", b"\1" * 100]


def test_importing_the_store_loads_no_tensorflow() -> None:
    """A collector does not pay for the trainer's libraries."""
    code = (
        "import sys, cloud.dataset.store, cloud.dataset.training_set\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# One writer: opens the table, which may not be there yet, and stores the batches that it is told, each
# answered for on a line of its own after the commit. In between it labels and compacts.
WRITER = """
import json, sys
from cloud.dataset.schema import SCHEMA, STATE, LabelOutcome, Outcome, Record, with_labels, with_samples
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.lance_table import Table
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
    """Cut the ids into batches, for each writer in nearly the same order, so that they collide."""
    rng = random.Random(seed)
    order = sorted(range(len(ids)), key=lambda index: index + rng.uniform(0, 20))
    for start in range(0, len(ids), 8):
        yield [ids[index] for index in order[start : start + 8]]


@pytest.mark.parametrize("locked", ["locked", "unlocked"])
def test_g2_many_writers_store_each_photo_once(tmp_path: Path, locked: str) -> None:
    """G2: four processes store the same ids at once, one dies by kill -9, and each id is there once.

    `unlocked` leaves out the lock of local tables: what remains is what holds on an object store.
    """
    url, ids = tmp_path / "photos.lance", [photo_id(number) for number in range(120)]
    writers = [_writer(url, locked, seed, list(_batches(ids, seed))) for seed in range(4)]
    victim = writers[0]
    assert victim.stdout is not None
    answers = [json.loads(victim.stdout.readline()) for _ in range(5)]
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(10) == -signal.SIGKILL
    answers += [json.loads(line) for line in victim.stdout]
    deadline_s = time.monotonic() + 60
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
        # Who is told `stored` stored it. Only the batch that the victim could not answer for is missing.
        assert max(stored.values()) == 1
        assert len(stored) >= len(ids) - 8
