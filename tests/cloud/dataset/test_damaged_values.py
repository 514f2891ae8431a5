"""Rule of all readers of the dataset: a damaged value costs its own row, and the others are read (0118)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cloud.dataset.store import Row, Store
from cloud.dataset.table.lance_package import lance
from cloud.dataset.training_set import human_classes, label_counts, read_examples
from cloud.evaluation.audit_set import audit_slice, audited_answers
from cloud.evaluation.live_accuracy import audit_stats_by_version, audited_photos
from cloud.labeling.review_queue import awaiting_review, known_classes

IDS = [f"{number:032x}" for number in range(1, 5)]
LABELLED, WAITING = IDS[2], IDS[3]
NAN = float("nan")
DAMAGE: dict[str, list[object]] = {
    "edge_label": [None, ""],
    "model_version": [None, -5],
    "received_at_ms": [None, -1],
    "width": [None],
    "scores": [None, [{"label": None, "score": None}]],
    "inclusion": [None, NAN, -1.0],
    "confidence": [None, NAN],
    "embedding": [None, [NAN] * 4, [1.0]],
    "split": [None, "tarin"],
    "node": [None],
    "device": [None],
    "lane": [None, "xx"],
    "image": [None, b""],
    "dhash": [None, "zz", ""],
    "human_label": ["", "a\nb"],
    "human_at_ms": [None],
    "origin": [None],
    "revision": [None],
}


def photo(photo_id: str, **fields: object) -> Row:
    return Row(
        photo_id=photo_id,
        image=b"\xff\xd8 picture",
        width=4,
        height=3,
        received_at_ms=7,
        node="e",
        device="d",
        lane="audit",
        edge_label="cat",
        confidence=0.9,
        scores={"cat": 0.9, "dog": 0.1},
        model="pets",
        model_version=1,
        dhash="0" * 16,
        embedding=np.ones(4, "<f4").tobytes(),
        inclusion=0.1,
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Iterator[tuple[str, object, Store]]]:
    """Yield column, value and a dataset in which two of four photos have that value."""
    path = tmp_path_factory.mktemp("damaged") / "photos.lance"
    told = {"human_label": "cat", "human_by": "ann", "human_at_ms": 5}
    Store.open(path).upsert(
        [photo(one, **(told if number % 2 == 0 else {})) for number, one in enumerate(IDS)]
    )
    whole = lance.dataset(str(path)).to_table()

    def stores() -> Iterator[tuple[str, object, Store]]:
        for column, values in DAMAGE.items():
            for value in values:
                at = whole.schema.get_field_index(column)
                field = whole.schema.field(at)
                rows = zip(whole["photo_id"].to_pylist(), whole[column].to_pylist(), strict=True)
                changed = [value if photo_id in IDS[:2] else was for photo_id, was in rows]
                table = whole.set_column(at, field, pa.array(changed, field.type))
                lance.write_dataset(table, str(path), mode="overwrite")
                yield column, value, Store.open(path)

    return stores


def readings(store: Store) -> Iterator[tuple[str, list[Any], str]]:
    """Yield what each reader returns, and the undamaged photo that has to be in it."""
    yield "answers", [one.photo_id for one in audited_answers(store)], LABELLED
    yield "examples", [one.photo_id for one in read_examples(store).examples], LABELLED
    yield "queue", [one.photo_id for one in awaiting_review(store, 9)], WAITING
    for whole in (audit_stats_by_version(store), audited_photos(store, 1), audit_slice(store, set())):
        yield "audits", [whole, LABELLED], LABELLED
    yield "classes", [*known_classes(store), *label_counts(store), *human_classes(store)], "cat"


def test_g2_a_damaged_value_is_no_obstacle_to_the_other_rows(damaged):
    """Null, no number, another length: training set, audits and review queue have the other rows."""
    for column, value, store in damaged():
        try:
            found = list(readings(store))
        except Exception as error:
            raise AssertionError(f"{column} = {value!r}: {error!r}") from error
        for name, read, wanted in found:
            assert wanted in read, f"{column} = {value!r}: {name} has {read}"
