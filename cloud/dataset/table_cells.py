"""Texts in the cells of a CSV file: a spreadsheet must not take one from outside for a formula. No I/O.

A class may be called `=HYPERLINK("http://…")`, and who gives a label writes any name. With an apostrophe in
front, a spreadsheet shows it as text; an import takes the apostrophe away again.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")


def inert_cell(text: str) -> str:
    """Return a text as no spreadsheet takes it for a formula; a number stays as it is."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def cell_text(cell: str) -> str:
    """Return the text that `inert_cell` was given; any other one unchanged."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
