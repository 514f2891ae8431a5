"""Rules of cloud/dataset/rows/row_changes.py: how labels and photos are merged, in any order."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloud.dataset.labels import Label, Withdrawal
from cloud.dataset.rows.row_changes import apply_label, apply_labels, apply_sample
from cloud.dataset.schema import Row

ID = "0123456789abcdef" * 2
VALID: dict[str, Any] = {"photo_id": ID, "image": b"x", "width": 1, "height": 1, "received_at_ms": 1}


@given(times=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), photo_at=st.integers(0, 4))
def test_order_of_arrival_does_not_matter(times: list[int], photo_at: int) -> None:
    """A photo and its labels give the same row in every order of arrival."""
    labels = [Label(photo_id=ID, label=f"l{at_ms}", by="ann", at_ms=at_ms) for at_ms in times]
    for order in itertools.permutations(labels):
        arrivals: list[Label | Row] = list(order)
        arrivals.insert(photo_at, Row(**VALID))
        stored: dict[str, Any] | None = None
        for arrival in arrivals:
            written = (
                apply_sample(arrival, stored) if isinstance(arrival, Row) else apply_label(arrival, stored)
            )
            stored = written or stored
        assert stored is not None
        assert (stored["human_label"], stored["human_at_ms"]) == (f"l{max(times)}", max(times))
        assert stored["image"] == b"x"


def test_later_of_waiting_and_imported_label_is_kept() -> None:
    """Of a label that waits and the label of an imported photo, the later is kept."""
    photo = Row(**VALID, human_label="cat", human_by="import", human_at_ms=5)
    for at_ms, expected in ((4, "cat"), (5, "cat"), (6, "dog")):
        waiting = apply_label(Label(photo_id=ID, label="dog", by="ann", at_ms=at_ms), None)
        record = apply_sample(photo, waiting)
        assert record is not None
        assert record["human_label"] == expected


def test_labels_of_one_call_are_one_record() -> None:
    """Several labels of a photo in one call are one record, in every order."""
    labels = [
        Label(photo_id=ID, label="dog", by="ann", at_ms=2),
        Label(photo_id=ID, label="cat", by="ann", at_ms=1),
        Label(photo_id=ID, label="cow", by="vit", at_ms=1, annotator="teacher"),
    ]
    for order in itertools.permutations(labels):
        records, outcomes = apply_labels(order, {})
        assert [(record["human_label"], record["teacher_label"]) for record in records] == [("dog", "cow")]
        assert outcomes == {ID: "waiting"}


def test_teacher_label_is_withdrawn() -> None:
    """A withdrawal keeps the human label, blocks older labels, yields to newer ones, and needs a label."""

    def taught(teacher: int) -> Label:
        return Label(photo_id=ID, label="dog", by=f"teacher/{teacher}", at_ms=teacher, annotator="teacher")

    withdrawal = Withdrawal(photo_id=ID, by="teacher/2", at_ms=2)
    person = apply_label(Label(photo_id=ID, label="cat", by="ann", at_ms=1), None)
    assert apply_label(withdrawal, None) is None
    assert apply_label(withdrawal, person) is None
    after = apply_label(withdrawal, apply_label(taught(1), person))
    assert after is not None
    assert (after["human_label"], after["teacher_label"]) == ("cat", None)
    assert apply_label(taught(1), after) is None
    later = apply_label(taught(3), after)
    assert later is not None
    assert later["teacher_label"] == "dog"
    assert apply_label(withdrawal, later) is None
