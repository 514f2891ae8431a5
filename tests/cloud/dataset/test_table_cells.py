"""Rules of cloud/dataset/table_cells.py: a spreadsheet shows a text from outside, and computes none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.dataset.table_cells import cell_text, inert_cell


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x?"&A1)', '\'=HYPERLINK("http://x?"&A1)'),
        ("@SUM(1)", "'@SUM(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("-5", "-5"),
        ("+1.5", "+1.5"),
        ("cat", "cat"),
        ("a=b", "a=b"),
        ("'quoted'", "'quoted'"),
        ("", ""),
    ],
)
def test_a_formula_becomes_text(text: str, cell: str) -> None:
    """An apostrophe in front makes it one; numbers and all other texts stay as they are."""
    assert inert_cell(text) == cell


@given(st.text(st.sampled_from("'=+-@\t1a")))
def test_an_import_reads_what_an_export_wrote(text: str) -> None:
    """For any text, with any first character."""
    assert cell_text(inert_cell(text)) == text
