"""Rules of cloud/dataset/rows/row_transaction.py: what happens if another writer is faster."""

from pathlib import Path

import pytest

from cloud.dataset.rows.row_changes import LabelOutcome, Outcome, apply_labels, apply_samples
from cloud.dataset.rows.row_transaction import change_rows
from cloud.dataset.schema import SCHEMA, STATE_COLUMNS, Record
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.lance_table import Table


def photo_id(number: int) -> str:
    return f"{number:032x}"


def photo(number: int, size_bytes: int = 100) -> Row:
    image = bytes([number]) * size_bytes
    return Row(photo_id=photo_id(number), image=image, width=1, height=1, received_at_ms=1)


def label(name: str, at_ms: int, **fields: object) -> Label:
    return Label(photo_id=photo_id(1), label=name, by="ann", at_ms=at_ms, **fields)  # type: ignore[arg-type]


def read(store: Store, *columns: str) -> list[object]:
    return [store.find([photo_id(1)], columns)[photo_id(1)][column] for column in columns]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "dataset.lance")


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("first", ["photo", "label"])
def test_writer_that_lost_a_race_decides_again(store: Store, first: str, indexed: bool) -> None:  # noqa: FBT001 - a parameter of the rule
    """Without the lock, a writer whose rows were changed since it read them decides again.

    This holds even if the table has an index on the ids, which disables Lance's own check.
    """
    store.upsert([photo(77)])
    if indexed:
        store.table.open_version().create_scalar_index("photo_id", "BTREE")
    unlocked, decisions = Table(store.table.url, None), list[int]()

    def decide(existing: dict[str, Record]) -> tuple[list[Record], dict[str, Outcome]]:
        if not decisions:
            _ = store.upsert([photo(1)]) if first == "photo" else store.label([label("dog", 5)])
        decisions.append(len(existing))
        return apply_samples({photo_id(1): photo(1, size_bytes=9)}, existing)

    outcome = change_rows(unlocked, [photo_id(1)], STATE_COLUMNS, decide)
    assert outcome == {photo_id(1): "duplicate" if first == "photo" else "stored"}
    assert decisions == [0, 1]
    assert store.count("true") == 2
    expected = (b"\1" * 100, None) if first == "photo" else (b"\1" * 9, "dog")
    assert tuple(read(store, "image", "human_label")) == expected


def test_stale_label_does_not_overwrite_a_newer_one(store: Store) -> None:
    """Of two labels decided on the same read, the second to commit decides again; the later one is kept."""
    store.upsert([photo(1)])
    unlocked, decisions = Table(store.table.url, None), list[int]()

    def decide(existing: dict[str, Record]) -> tuple[list[Record], dict[str, LabelOutcome]]:
        if not decisions:
            store.label([label("late", 9), label("cow", 9, annotator="teacher")])
        decisions.append(existing[photo_id(1)]["revision"])
        return apply_labels([label("early", 5)], existing)

    assert change_rows(unlocked, [photo_id(1)], SCHEMA.names, decide) == {photo_id(1): "superseded"}
    assert decisions == [1, 2]
    assert read(store, "human_label", "teacher_label", "image") == ["late", "cow", b"\1" * 100]
