"""Rules of cloud/dataset/curation.py: every row can be found, corrected and taken out, and it is recorded."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import (
    Forgotten,
    Retention,
    Selection,
    find_excess,
    find_photo,
    find_photos,
    forget_ids,
    forget_photos,
    rename_class,
    set_label,
    stored_labels,
)
from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.photo_caches import purge_caches
from cloud.dataset.schema import SCHEMA, Record
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.lance_package import Compaction
from cloud.dataset.table.lance_table import Table
from schemas.codec import content_id
from schemas.errors import PermanentError, TransientError


def photo_id(number: int) -> str:
    return f"{number:032x}"


def image(number: int) -> bytes:
    return b"picture %06d " % number * 100


def row(number: int, **fields: Any) -> Row:
    facts = {"width": 1, "height": 1, "received_at_ms": number + 1, "node": "edge-1", "device": "pi-1"}
    return Row(photo_id=photo_id(number), image=image(number), **(facts | fields))


def imported(number: int, label: str, source: str) -> Row:
    said = {"human_label": label, "human_by": "import", "human_at_ms": 1, "imported_label": label}
    return row(number, node=None, device=None, origin="import", source=source, split="train", **said)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two imported photos, and three samples of two cameras."""
    store = Store.open(tmp_path / "photos.lance")
    store.upsert([imported(0, "cat", "cat/0.jpg"), imported(1, "dog", "dog/1.jpg")])
    store.upsert([row(2), row(3, device="pi-2"), row(4, edge_label="cat", lane="hard")])
    return store


@pytest.fixture
def log(store: Store) -> ChangeLog:
    return ChangeLog.open(store.table.url)


def on_disk(store: Store, number: int) -> bool:
    """Return whether any file of the dataset has a photo's bytes."""
    files = (path for path in Path(store.table.url).rglob("*") if path.is_file())
    return any(image(number) in path.read_bytes() for path in files)


def test_photos_are_selected_by_every_condition(store: Store) -> None:
    """Conditions are joined with AND; a quote in a value is text."""

    def found(**conditions: Any) -> list[int]:
        return [int(key, 16) for key in find_photos(store, Selection(**conditions))]

    assert found() == [0, 1, 2, 3, 4]
    assert found(device="pi-1") == [2, 4]
    assert found(label="cat") == [0]
    assert found(label="' OR true OR '") == []
    assert found(labelled=False, before_ms=5) == [2, 3]
    assert found(lane="hard", after_ms=2) == [4]
    assert found(origin="import", split="train", photos=("cat/0.jpg",)) == [0]


def test_a_photo_is_named_by_id_prefix_or_file(store: Store) -> None:
    """An unknown or ambiguous name is an error with what to do."""
    assert find_photo(store, photo_id(2)) == photo_id(2)
    assert find_photo(store, "dog/1.jpg") == photo_id(1)
    with pytest.raises(PermanentError, match=r"fits several: .*; give the id"):
        find_photo(store, "0" * 20)
    for name in ("nothing.jpg", "' OR true --", "ff" * 16):
        with pytest.raises(PermanentError, match="not in the dataset; 'gleaner cloud list'"):
            find_photo(store, name)


def test_a_label_is_given_once_and_replaced_on_demand(store: Store, log: ChangeLog) -> None:
    """`label` refuses to replace a person's label, `relabel` does; both are recorded."""

    def given(number: int, label: str) -> Label:
        return Label(photo_id=photo_id(number), label=label, by="ann", at_ms=9)

    assert set_label(store, log, given(2, "cat"), "label") is None
    with pytest.raises(PermanentError, match="has the label 'cat'; 'gleaner cloud relabel'"):
        set_label(store, log, given(2, "dog"), "label")
    assert set_label(store, log, given(2, "dog"), "relabel") == "cat"
    assert store.find([photo_id(2)], ["human_label", "human_by"])[photo_id(2)]["human_label"] == "dog"
    changes = [(change.by, change.action, change.detail) for change in log.newest(9)]
    assert sorted(changes) == [("ann", "label", "None -> cat"), ("ann", "relabel", "cat -> dog")]


def test_of_two_people_at_once_the_first_label_stays(store: Store, log: ChangeLog) -> None:
    """`label` looks at the row as it is when it is written; the slower one gets an error."""

    def meanwhile(act: Callable[[Store], object]) -> Store:
        """Return the dataset as a process sees it that is overtaken before its next write."""

        class Overtaken(Store):
            def change(self, *arguments: Any) -> list[str]:
                act(store)
                return super().change(*arguments)

        return Overtaken(store.table)

    mine = Label(photo_id=photo_id(2), label="dog", by="ann", at_ms=9)
    theirs = Label(photo_id=photo_id(2), label="cat", by="bob", at_ms=8)
    with pytest.raises(PermanentError, match="has the label 'cat'; 'gleaner cloud relabel'"):
        set_label(meanwhile(lambda other: other.label([theirs])), log, mine, "label")
    assert store.count("human_label = 'cat' AND human_by = 'bob'") == 1
    forgetting = meanwhile(lambda other: forget_photos(other, log, Selection(photos=[photo_id(2)]), "bob"))
    with pytest.raises(PermanentError, match="not in the dataset"):
        set_label(forgetting, log, mine, "relabel")
    assert store.count(f"photo_id = '{photo_id(2)}' AND human_label IS NULL", None) == 1
    assert [change.action for change in log.newest(9)] == ["forget"], "what did not happen is not recorded"


def test_a_label_from_the_future_can_be_replaced(store: Store, log: ChangeLog) -> None:
    """A stored time that a wrong clock gave does not last."""
    store.change([photo_id(2)], lambda record: record | {"human_label": "cat", "human_at_ms": 2**53})
    set_label(store, log, Label(photo_id=photo_id(2), label="dog", by="ann", at_ms=9), "relabel")
    assert store.count("human_label = 'dog' AND human_at_ms = 9") == 1


def test_a_class_is_renamed_everywhere(store: Store, log: ChangeLog) -> None:
    """Labels of people, teachers and edges follow, but not the label that an import took from its folder."""
    assert rename_class(store, log, "cat", "tabby", by="ann") == 2
    assert store.count("human_label = 'tabby'") == store.count("edge_label = 'tabby'") == 1
    assert store.count("imported_label = 'cat'") == 1
    with pytest.raises(PermanentError, match="'cat': no photo has it; choose one of dog, tabby"):
        rename_class(store, log, "cat", "x", by="ann")
    with pytest.raises(PermanentError, match="'dog' exists; 'gleaner cloud merge-class'"):
        rename_class(store, log, "tabby", "dog", by="ann")
    with pytest.raises(PermanentError, match="'cow': no photo has it; 'gleaner cloud rename-class'"):
        rename_class(store, log, "tabby", "cow", by="ann", merge=True)
    assert rename_class(store, log, "tabby", "dog", by="ann", merge=True) == 2
    assert store.count("human_label = 'dog'") == 2


def test_labels_by_devices_are_renamed_too(store: Store, log: ChangeLog) -> None:
    """No label of the class is left behind: trainings would have it as its own class."""
    given = {"device_label": "Cat", "device_by": "pi-1", "device_at_ms": 1}
    store.change([photo_id(2)], lambda record: record | given)
    assert rename_class(store, log, "Cat", "cat", by="ann", merge=True) == 1
    assert store.count("device_label = 'cat'") == 1
    assert "Cat" not in stored_labels(store)


def test_a_class_of_an_earlier_version_is_renamed_by_its_escaped_name(store: Store, log: ChangeLog) -> None:
    """A name with a line break, which can be printed only escaped, is found by that."""
    store.change([photo_id(2)], lambda record: record | {"human_label": "cat\n"})
    assert rename_class(store, log, r"cat\n", "cat", by="ann", merge=True) == 1
    assert store.count("human_label = 'cat'") == 2


def test_a_forgotten_photo_is_gone_for_good(store: Store, log: ChangeLog) -> None:
    """Its bytes leave the disk and all versions; neither sample, label nor import brings it back."""
    store.tag("model-1")
    assert on_disk(store, 2)
    done = forget_photos(store, log, Selection(node="edge-1", device="pi-1"), "ann")
    assert done.photo_ids == [photo_id(2), photo_id(4)]
    assert done.content_ids == [content_id(image(2)), content_id(image(4))]
    assert done.tags == ["model-1"]
    assert [on_disk(store, number) for number in range(5)] == [True, True, False, True, False]
    assert store.count() == 3
    assert store.upsert([row(2)]) == {photo_id(2): "duplicate"}
    later = Label(photo_id=photo_id(2), label="cat", by="ann", at_ms=99)
    assert store.label([later]) == {photo_id(2): "forgotten"}
    assert find_photos(store, Selection(device="pi-1")) == []
    (mark,) = store.scan(["node", "device", "human_label", "image"], where=f"photo_id = '{photo_id(2)}'")
    assert set(mark.values()) == {None}
    assert [change.photo_ids for change in log.newest(1)] == [done.photo_ids]
    assert forget_photos(store, log, Selection(photos=()), "ann").photo_ids == [
        photo_id(0), photo_id(1), photo_id(3)
    ]  # fmt: skip


def test_what_was_confirmed_is_what_goes(store: Store, log: ChangeLog) -> None:
    """A photo that a person labelled, or put into another class, since it was shown stays."""
    retention = Retention(before_ms=10)
    ids = find_excess(store, retention).photo_ids
    assert ids == [photo_id(2), photo_id(3), photo_id(4)]
    store.label([Label(photo_id=photo_id(3), label="cat", by="ann", at_ms=10)])
    version = store.version

    def may_go(record: Record) -> bool:
        return retention.rank(record) is not None

    kept = forget_ids(store, log, ids[1:2], "timer", detail=str(retention), action="retain", still=may_go)
    assert (kept, store.version) == (Forgotten(), version), "nothing went, so no older version did"
    done = forget_ids(store, log, ids, "timer", detail=str(retention), action="retain", still=may_go)
    assert done.photo_ids == [photo_id(2), photo_id(4)]
    assert done.content_ids == [content_id(image(2)), content_id(image(4))]
    assert store.count("human_label = 'cat'") == 2


def test_a_selection_fits_what_it_finds(store: Store) -> None:
    """Its condition in SQL and that on a row are the same."""
    rows = list(store.scan(SCHEMA.names))
    for conditions in (
        {},
        {"node": "edge-1", "device": "pi-1"},
        {"label": "cat"},
        {"labelled": True},
        {"labelled": False, "before_ms": 5},
        {"lane": "hard", "after_ms": 5},
        {"origin": "import", "split": "train"},
    ):
        selection = Selection(**conditions)  # type: ignore[arg-type]
        found = sorted(str(row["photo_id"]) for row in rows if selection.fits(row))
        assert found == find_photos(store, selection)


def label_before_commits(monkeypatch: pytest.MonkeyPatch, store: Store, times: int) -> None:
    """Label photo 3 while the next compactions rewrite it, as a process without the lock."""
    real, left = Compaction.commit, iter(range(times))

    def commit(*arguments: object) -> object:
        if (number := next(left, None)) is not None:
            label = Label(photo_id=photo_id(3), label=f"class {number}", by="ann", at_ms=times * 100 + number)
            Store(Table(store.table.url, None)).label([label])
        return real(*arguments)

    monkeypatch.setattr(Compaction, "commit", commit)


def test_a_label_meanwhile_leaves_no_bytes(
    store: Store, log: ChangeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgetting that lost against a writer rewrites again; if it never wins, it fails."""
    label_before_commits(monkeypatch, store, 2)
    forget_photos(store, log, Selection(photos=[photo_id(2)]), "ann")
    assert not on_disk(store, 2)
    assert store.count("human_label = 'class 1'") == 1
    label_before_commits(monkeypatch, store, 1000)
    with pytest.raises(TransientError, match="still on the disk; the next 'gleaner cloud forget'"):
        forget_photos(store, log, Selection(photos=[photo_id(4)]), "ann")
    monkeypatch.undo()
    forget_photos(store, log, Selection(photos=[photo_id(0)]), "ann")
    assert not on_disk(store, 4)


def test_retention_keeps_labels_and_gold(store: Store) -> None:
    """The oldest photos without a label go until the size fits; labelled ones and gold only if allowed."""
    store.upsert([row(5, split="gold", human_label="cat", human_by="ann", human_at_ms=1)])
    store.upsert([row(6, device_label="dog", device_by="pi", device_at_ms=1)])
    one = len(image(0))

    def numbers(**limits: Any) -> list[int]:
        return [int(found, 16) for found in find_excess(store, Retention(**limits)).photo_ids]

    assert numbers() == numbers(max_bytes=7 * one) == []
    assert numbers(max_bytes=7 * one - 1) == [2]
    assert numbers(max_bytes=5 * one) == [2, 3]
    assert numbers(max_bytes=0) == [2, 3, 4], "labelled and gold photos stay at any size"
    assert numbers(max_bytes=2 * one, labelled=True) == [0, 1, 2, 3, 4]
    assert numbers(max_bytes=2 * one, gold=True) == [2, 3, 4, 5]
    assert numbers(max_bytes=0, labelled=True, gold=True) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(before_ms=4) == [2]
    assert numbers(before_ms=4, labelled=True) == [0, 1, 2]
    assert numbers(before_ms=4, max_bytes=5 * one) == [2, 3]
    excess = find_excess(store, Retention(max_bytes=0))
    assert (excess.going_bytes, excess.left_bytes) == (3 * one, 4 * one)


def test_dead_letters_and_caches_forget_too(tmp_path: Path) -> None:
    """Only the rows of the named photos are removed."""
    letters = DeadLetterTable.open(tmp_path / "photos.lance")
    kept = [
        DeadLetter(photo_id=photo_id(n), node="edge-1", reason="x", received_at_ms=n, payload=image(n))
        for n in range(3)
    ]
    letters.put(kept, Bounds(100, 10**6))
    assert letters.remove([photo_id(1), photo_id(7)]) == 1
    assert [letter.photo_id for letter in letters.newest(9)] == [photo_id(2), photo_id(0)]
    path = tmp_path / "cache" / "flipped" / "net.sqlite3"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as cache, cache:
        cache.execute("CREATE TABLE embedding (photo BLOB PRIMARY KEY, vector BLOB)")
        keys = [bytes.fromhex(content_id(image(n))) for n in range(2)]
        cache.executemany("INSERT INTO embedding VALUES (?, x'00')", [(key,) for key in keys])
    purge_caches(tmp_path / "cache", [content_id(image(0))])
    with closing(sqlite3.connect(path)) as cache:
        assert cache.execute("SELECT photo FROM embedding").fetchall() == [(keys[1],)]
