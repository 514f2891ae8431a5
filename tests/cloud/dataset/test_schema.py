"""Rules of cloud/dataset/schema.py: what is let into the dataset, and how labels and photos meet."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.dataset.labels import Label, Withdrawal
from cloud.dataset.schema import SCHEMA, Row, as_record, with_label, with_labels, with_sample
from schemas.errors import PermanentError

ID = "0123456789abcdef" * 2
SOUND: dict[str, Any] = {"photo_id": ID, "image": b"x", "width": 1, "height": 1, "received_at_ms": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("photo_id", "abc"),
        ("photo_id", ID.upper()),
        ("photo_id", ID + "\n"),
        ("photo_id", "' OR true --"),
        ("image", b""),
        ("width", 0),
        ("received_at_ms", -1),
        ("received_at_ms", 1.5),
        ("confidence", float("nan")),
        ("confidence", 1.01),
        ("scores", {"cat": float("nan")}),
        ("scores", {"cat": float("inf")}),
        ("embedding", b"123"),
        ("human_label", "cat"),
        ("split", "test"),
        ("dhash", "12"),
        ("node", "Edge/1"),
    ],
)
def test_a_row_out_of_range_is_refused(field: str, value: object) -> None:
    """The error names the field and the row, and says what was expected and got."""
    with pytest.raises(PermanentError, match=r" of row .*: expected .*, got ") as caught:
        Row(**SOUND | {field: value})
    assert field.removesuffix("_label") in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("photo_id", "x"), ("label", ""), ("at_ms", -1), ("annotator", "I")]
)
def test_a_label_out_of_range_is_refused(field: str, value: object) -> None:
    """A label is held against the same rules."""
    sound: dict[str, Any] = {"photo_id": ID, "label": "cat", "by": "ann", "at_ms": 1}
    Label(**sound)
    with pytest.raises(PermanentError, match=f"{field} of label for"):
        Label(**sound | {field: value})


def test_records_have_the_columns_of_the_table() -> None:
    """A row fills every column but the revision, which the writer counts."""
    assert set(as_record(Row(**SOUND))) == set(SCHEMA.names) - {"revision"}
    record = with_label(Label(photo_id=ID, label="cat", by="ann", at_ms=1), None)
    assert record is not None
    assert set(record) == set(SCHEMA.names)


@given(times=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), photo_at=st.integers(0, 4))
def test_order_does_not_matter(times: list[int], photo_at: int) -> None:
    """Labels and the photo they belong to end in the same row in whatever order they arrive."""
    labels = [Label(photo_id=ID, label=f"l{at_ms}", by="ann", at_ms=at_ms) for at_ms in times]
    for order in itertools.permutations(labels):
        arrivals: list[Label | Row] = list(order)
        arrivals.insert(photo_at, Row(**SOUND))
        stored: dict[str, Any] | None = None
        for arrival in arrivals:
            written = (
                with_sample(arrival, stored) if isinstance(arrival, Row) else with_label(arrival, stored)
            )
            stored = written or stored
        assert stored is not None
        assert (stored["human_label"], stored["human_at_ms"]) == (f"l{max(times)}", max(times))
        assert stored["image"] == b"x"


def test_a_photo_brings_a_label_too() -> None:
    """Of the label that waits and the one that an imported photo brings, the later holds."""
    photo = Row(**SOUND, human_label="cat", human_by="import", human_at_ms=5)
    for at_ms, expected in ((4, "cat"), (5, "cat"), (6, "dog")):
        waiting = with_label(Label(photo_id=ID, label="dog", by="ann", at_ms=at_ms), None)
        record = with_sample(photo, waiting)
        assert record is not None
        assert record["human_label"] == expected


def test_labels_of_one_call_are_one_record() -> None:
    """Several labels of a photo in a call are one write of its row, whatever their order."""
    said = [
        Label(photo_id=ID, label="dog", by="ann", at_ms=2),
        Label(photo_id=ID, label="cat", by="ann", at_ms=1),
        Label(photo_id=ID, label="cow", by="vit", at_ms=1, annotator="teacher"),
    ]
    for order in itertools.permutations(said):
        records, outcomes = with_labels(order, {})
        assert [(record["human_label"], record["teacher_label"]) for record in records] == [("dog", "cow")]
        assert outcomes == {ID: "waiting"}


def test_a_teacher_takes_a_label_back() -> None:
    """A person's stays; nothing older comes back, what is newer holds, and of nothing nothing is written."""

    def taught(teacher: int) -> Label:
        return Label(photo_id=ID, label="dog", by=f"teacher/{teacher}", at_ms=teacher, annotator="teacher")

    back = Withdrawal(photo_id=ID, by="teacher/2", at_ms=2)
    person = with_label(Label(photo_id=ID, label="cat", by="ann", at_ms=1), None)
    assert with_label(back, None) is None
    assert with_label(back, person) is None
    after = with_label(back, with_label(taught(1), person))
    assert after is not None
    assert (after["human_label"], after["teacher_label"]) == ("cat", None)
    assert with_label(taught(1), after) is None
    later = with_label(taught(3), after)
    assert later is not None
    assert later["teacher_label"] == "dog"
    assert with_label(back, later) is None
