"""Rules of cloud/evaluation/audit_set.py: what the audit slice contains, and that no training sees it."""

from pathlib import Path
from typing import Any

import pytest

from cloud.dataset.example import MIN_CLASS_LABELS, Example
from cloud.dataset.store import Row, Store
from cloud.evaluation.audit_set import audit_slice, hold_out_audit
from schemas.class_names import NEITHER
from schemas.codec import content_id
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
            drawn(1, node="e", device="a", device_group="meters"),
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
    assert (photo.weight, photo.group) == (4.0, "meters")  # so that the gate asks the head of its group
    assert (int(of_unknown_inclusion.photo_id, 16), of_unknown_inclusion.weight) == (5, 1.0)
    assert of_unknown_inclusion.group == ""


def example(image: bytes, label: str, photo_id: str = "0" * 32) -> Example:
    return Example(photo_id, image, label, "human")


def others(label: str, count: int = MIN_CLASS_LABELS) -> list[Example]:
    """Return photos of a class besides the slice."""
    return [example(f"{label}{n}".encode(), label, content_id(f"{label}{n}".encode())) for n in range(count)]


def test_evaluation_photos_are_not_trained_on() -> None:
    """Photos of the slice are removed from the training by content, not by id."""
    audit = [example(b"a", "cat"), example(b"b", "dog")]
    rest = [*others("cat"), *others("dog")]
    examples = [example(b"a", "cat", "1" * 32), example(b"b", "dog"), *rest]
    training, evaluation = hold_out_audit(examples, audit)
    assert training == rest
    assert evaluation == audit
    assert hold_out_audit(examples, []) == (examples, [])


@pytest.mark.parametrize("elsewhere", range(MIN_CLASS_LABELS))
def test_a_class_with_too_few_labels_besides_the_slice_is_trained_on(elsewhere: int) -> None:
    """Its photos are training examples and evaluate nothing: else it would wait for labels that there are."""
    audit = [*(example(b"fox" * n, "fox") for n in range(1, 9)), example(b"b", "dog")]
    rest = [*others("cat"), *others("dog"), *others("fox", elsewhere)]
    training, evaluation = hold_out_audit([*audit, *rest], audit)
    assert [photo.image for photo in evaluation] == [b"b"]
    assert len(training) == 8 + len(rest)
    near = {photo.photo_id for photo in others("fox")}
    rest = [*others("cat"), *others("dog"), *others("fox")]
    assert len(hold_out_audit([*audit, *rest], audit)[1]) == 9
    assert len(hold_out_audit([*audit, *rest], audit, near)[1]) == 1, "near-duplicates are left out of it"
