"""The fresh audit slice: what is in it, and that it is not trained on."""

from pathlib import Path
from typing import Any

from cloud.dataset.example import Example
from cloud.dataset.store import Row, Store
from cloud.evaluation.audit_set import audit_slice, hold_back
from schemas.messages import NEITHER
from tests.conftest import jpeg


def drawn(number: int, **fields: Any) -> Row:
    """A photo of the lane audit that a person labelled, with changes."""
    known: dict[str, Any] = {
        "image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 101, "lane": "audit",
        "inclusion": 0.25, "human_label": "cat", "human_by": "ann", "human_at_ms": 9,
    }  # fmt: skip
    return Row(photo_id=f"{number:032x}", **known | fields)


def test_the_audit_slice_is_what_was_drawn_and_named_since(tmp_path: Path) -> None:
    """Drawn, called a class by a person, not gold, received later; each counts for what it is worth."""
    store = Store.open(tmp_path / "photos.lance")
    nobody = {"human_label": None, "human_by": None, "human_at_ms": None}
    teacher = {"teacher_label": "cat", "teacher_by": "vit", "teacher_at_ms": 9}
    store.upsert(
        [
            drawn(1),
            drawn(2, received_at_ms=100),
            drawn(3, lane="hard"),
            drawn(4, **nobody, **teacher),
            drawn(5, inclusion=None),
            drawn(6, split="gold"),
            drawn(7, human_label=NEITHER),
        ]
    )
    photo, unknown = audit_slice(store, 100)
    assert (int(photo.photo_id, 16), photo.image, photo.label) == (1, jpeg(1), "cat")
    assert photo.weight == 4.0
    assert (int(unknown.photo_id, 16), unknown.weight) == (5, 1.0)


def one(image: bytes, label: str, photo_id: str = "0" * 32) -> Example:
    return Example(photo_id, image, label, "human")


def test_what_judges_is_not_trained_on_whatever_its_id() -> None:
    """The slice's photos leave the training by their content."""
    audit = [one(b"a", "cat"), one(b"b", "dog")]
    examples = [one(b"a", "cat", "1" * 32), one(b"b", "dog"), one(b"c", "cat"), one(b"d", "dog")]
    training, judges = hold_back(examples, audit)
    assert [example.image for example in training] == [b"c", b"d"]
    assert judges == audit
    assert hold_back(examples, []) == (examples, [])


def test_a_class_that_only_the_slice_shows_is_trained_on() -> None:
    """Else no version could ever learn it; such photos judge nothing."""
    examples = [one(b"a", "fox"), one(b"b", "dog"), one(b"c", "cat"), one(b"d", "dog")]
    training, judges = hold_back(examples, examples[:2])
    assert [example.image for example in training] == [b"a", b"c", b"d"]
    assert [photo.image for photo in judges] == [b"b"]
