"""Rules of cloud/evaluation/audit_set.py: what the audit slice contains, and that no training sees it."""

from pathlib import Path
from typing import Any

from cloud.dataset.example import Example
from cloud.dataset.store import Row, Store
from cloud.evaluation.audit_set import audit_slice, hold_out_audit
from schemas.class_names import NEITHER
from tests.conftest import jpeg


def drawn(number: int, **fields: Any) -> Row:
    """Return a labelled photo of the audit lane, with changes."""
    known: dict[str, Any] = {
        "image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 101, "lane": "audit",
        "inclusion": 0.25, "human_label": "cat", "human_by": "ann", "human_at_ms": 9,
    }  # fmt: skip
    return Row(photo_id=f"{number:032x}", **known | fields)


def test_the_audit_slice_has_labelled_audit_photos_that_were_not_seen(tmp_path: Path) -> None:
    """Randomly drawn, with a human label of a class, not gold, not seen before; with sampling weights."""
    store = Store.open(tmp_path / "photos.lance")
    unlabelled = {"human_label": None, "human_by": None, "human_at_ms": None}
    teacher = {"teacher_label": "cat", "teacher_by": "vit", "teacher_at_ms": 9}
    store.upsert(
        [
            drawn(1),
            drawn(2),
            drawn(3, lane="hard"),
            drawn(4, **unlabelled, **teacher),
            drawn(5, inclusion=None),
            drawn(6, split="gold"),
            drawn(7, human_label=NEITHER),
        ]
    )
    unseen = {f"{number:032x}" for number in (1, 3, 4, 5, 6, 7)}
    photo, of_unknown_inclusion = audit_slice(store, unseen)
    assert (int(photo.photo_id, 16), photo.image, photo.label) == (1, jpeg(1), "cat")
    assert photo.weight == 4.0
    assert (int(of_unknown_inclusion.photo_id, 16), of_unknown_inclusion.weight) == (5, 1.0)


def example(image: bytes, label: str, photo_id: str = "0" * 32) -> Example:
    return Example(photo_id, image, label, "human")


def test_evaluation_photos_are_not_trained_on() -> None:
    """Photos of the slice are removed from the training by content, not by id."""
    audit = [example(b"a", "cat"), example(b"b", "dog")]
    examples = [
        example(b"a", "cat", "1" * 32),
        example(b"b", "dog"),
        example(b"c", "cat"),
        example(b"d", "dog"),
    ]
    training, evaluation = hold_out_audit(examples, audit)
    assert [photo.image for photo in training] == [b"c", b"d"]
    assert evaluation == audit
    assert hold_out_audit(examples, []) == (examples, [])


def test_a_class_that_only_the_slice_has_is_trained_on() -> None:
    """Its photos are training examples and evaluate nothing, else no version could ever learn the class."""
    examples = [example(b"a", "fox"), example(b"b", "dog"), example(b"c", "cat"), example(b"d", "dog")]
    training, evaluation = hold_out_audit(examples, examples[:2])
    assert [photo.image for photo in training] == [b"a", b"c", b"d"]
    assert [photo.image for photo in evaluation] == [b"b"]
