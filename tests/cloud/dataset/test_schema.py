"""Rules of cloud/dataset/schema.py: range checks of rows, and their columns."""

from typing import Any

import pytest

from cloud.dataset.labels import Label
from cloud.dataset.rows.row_changes import apply_label
from cloud.dataset.schema import SCHEMA, Row, as_record
from schemas.errors import PermanentError

ID = "0123456789abcdef" * 2
VALID: dict[str, Any] = {"photo_id": ID, "image": b"x", "width": 1, "height": 1, "received_at_ms": 1}


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
def test_row_out_of_range_is_refused(field: str, value: object) -> None:
    """The error names the field, the row, the expected form and the value."""
    with pytest.raises(PermanentError, match=r" of row .*: expected .*, got ") as caught:
        Row(**VALID | {field: value})
    assert field.removesuffix("_label") in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("photo_id", "x"), ("label", ""), ("at_ms", -1), ("annotator", "I")]
)
def test_label_out_of_range_is_refused(field: str, value: object) -> None:
    """Labels are checked by the same rules."""
    valid: dict[str, Any] = {"photo_id": ID, "label": "cat", "by": "ann", "at_ms": 1}
    Label(**valid)
    with pytest.raises(PermanentError, match=f"{field} of label for"):
        Label(**valid | {field: value})


def test_records_have_the_columns_of_the_table() -> None:
    """A row fills every column but the revision, which the writer sets."""
    assert set(as_record(Row(**VALID))) == set(SCHEMA.names) - {"revision"}
    record = apply_label(Label(photo_id=ID, label="cat", by="ann", at_ms=1), None)
    assert record is not None
    assert set(record) == set(SCHEMA.names)
