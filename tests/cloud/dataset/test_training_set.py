"""Rules of cloud/dataset/training_set.py: precedence of labels, and which photos are examples."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cloud.dataset.store import HAS_HUMAN_CLASS, Label, Row, Store
from cloud.dataset.training_set import device_groups, examples, resolve_label
from schemas.class_names import NEITHER


def jpeg(grey: int, size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(number: int, **fields: Any) -> Row:
    known: dict[str, Any] = {
        "image": jpeg(number),
        "width": 32,
        "height": 24,
        "received_at_ms": 1,
        "lane": "hard",
    }
    return Row(photo_id=f"{number:032x}", **known | fields)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


@pytest.mark.parametrize(
    ("human", "teacher", "edge", "expected"),
    [
        ("a", "b", "c", ("a", "human")),
        (None, "b", "c", ("b", "teacher")),
        (None, None, "c", ("c", "edge")),
        (None, None, None, None),
    ],
)
def test_human_label_precedes_teacher_precedes_edge(
    human: str | None, teacher: str | None, edge: str | None, expected: tuple[str, str] | None
) -> None:
    """The human label is used, else the teacher's, else the edge's."""
    assert resolve_label(human, teacher, edge) == expected


def test_auto_lane_needs_edge_and_teacher_to_agree(store: Store) -> None:
    """In lane auto, if edge and teacher disagree, a photo is an example only with a human label."""

    def auto(number: int, edge: str | None, teacher: str, **fields: Any) -> Row:
        taught = {"teacher_label": teacher, "teacher_by": "vit", "teacher_at_ms": 1}
        return sample(number, lane="auto", edge_label=edge, confidence=0.9, **taught, **fields)

    human = {"human_label": "cow", "human_by": "ann", "human_at_ms": 1}
    store.upsert(
        [auto(1, "cat", "cat"), auto(2, "cat", "dog"), auto(3, None, "dog"), auto(4, "a", "b", **human)]
    )
    found = [(int(e.photo_id, 16), e.label, e.source, e.auto) for e in examples(store)]
    assert found == [(1, "cat", "teacher", True), (4, "cow", "human", False)]


def test_examples_are_labelled_photos(store: Store) -> None:
    """Photos without a label and labels without a photo are left out; edge labels count in lane auto only."""
    teacher = {"teacher_label": "dog", "teacher_by": "vit", "teacher_at_ms": 1}
    store.upsert(
        [
            sample(1, edge_label="cat", confidence=0.5, **teacher),
            sample(2, edge_label="cat", confidence=0.75, lane="auto"),
            sample(3, edge_label="cat", confidence=0.5),
            sample(4),
            sample(5, edge_label="cat", confidence=0.75, lane="auto"),
            sample(6, split="gold", edge_label="cat", confidence=0.75, lane="auto"),
        ]
    )
    cow = {"label": "cow", "by": "ann", "at_ms": 1}
    store.label([Label(photo_id=f"{number:032x}", **cow) for number in (5, 9)])  # type: ignore[arg-type]
    found = examples(store)
    assert [(int(e.photo_id, 16), e.label, e.source, e.weight) for e in found] == [
        (1, "dog", "teacher", 1.0),
        (2, "cat", "edge", 0.75),
        (5, "cow", "human", 1.0),
    ]
    assert found[0].image == jpeg(1)
    assert [int(e.photo_id, 16) for e in examples(store, split="gold")] == [6]


def test_neither_is_not_an_example(store: Store) -> None:
    """A human label NEITHER takes precedence over teacher and edge, and the photo is left out."""
    cat = {"teacher_label": "cat", "teacher_by": "vit", "teacher_at_ms": 1, "edge_label": "cat"}
    store.upsert([sample(n, lane="auto", confidence=0.9, **cat) for n in (1, 2)])
    store.upsert([sample(3, split="gold"), sample(4, edge_label=NEITHER, lane="auto", confidence=0.9)])
    store.label([Label(photo_id=f"{n:032x}", label=NEITHER, by="ann", at_ms=1) for n in (1, 3)])
    assert [int(e.photo_id, 16) for e in examples(store)] == [2]
    assert examples(store, split="gold") == []
    store.label([Label(photo_id=f"{1:032x}", label="dog", by="ann", at_ms=2)])
    assert [(e.label, e.source) for e in examples(store)] == [("dog", "human"), ("cat", "teacher")]


def test_condition_is_applied_in_the_scan(store: Store) -> None:
    """Images of photos that do not meet the further condition are not read into memory."""
    heavy = {"image": bytes(500_000), "lane": "auto", "edge_label": "cat", "confidence": 0.9}
    store.upsert([sample(n, **heavy) for n in range(40)])
    store.upsert([sample(n) for n in range(100, 103)])
    store.label([Label(photo_id=f"{n:032x}", label="cat", by="ann", at_ms=1) for n in range(100, 103)])
    tracemalloc.start()
    try:
        found = examples(store, where=HAS_HUMAN_CLASS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [int(example.photo_id, 16) for example in found] == [100, 101, 102]
    assert peak_bytes < 10 * 500_000


def test_tagged_version_gives_the_same_examples(store: Store) -> None:
    """The examples that a model was trained on can be read again after the dataset has grown."""
    store.upsert([sample(1, edge_label="cat", confidence=0.9, lane="auto")])
    store.tag("v1")
    store.upsert([sample(2, edge_label="cat", confidence=0.9, lane="auto")])
    store.label([Label(photo_id=f"{1:032x}", label="dog", by="ann", at_ms=1)])
    assert [(e.label, e.source) for e in examples(store, version="v1")] == [("cat", "edge")]
    assert len(examples(store)) == 2


def test_a_photo_is_of_the_group_that_its_device_is_in_now(store: Store) -> None:
    """The newest sample decides, for earlier photos too, also those of edges without groups."""
    human = {"human_label": "cat", "human_by": "anna", "human_at_ms": 1}

    def taken(number: int, device: str, group: str | None, at_ms: int) -> Row:
        return sample(number, node="e", device=device, device_group=group, received_at_ms=at_ms, **human)

    imported = sample(9, origin="import", lane=None, **human)
    store.upsert([taken(1, "a", None, 1), taken(2, "a", "old", 2), taken(3, "a", "new", 3), imported])
    store.upsert([taken(4, "b", "left", 4), taken(5, "b", "", 5)])
    found = {example.photo_id: example.group for example in examples(store)}
    assert {int(photo_id, 16): group for photo_id, group in found.items()} == {
        1: "new",
        2: "new",
        3: "new",
        4: "",
        5: "",
        9: "",
    }
    assert device_groups(store) == {("e", "a"): "new"}
