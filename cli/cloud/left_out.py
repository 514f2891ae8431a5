"""Print the rows that a training or evaluation does not use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.output import print_error, print_line

if TYPE_CHECKING:
    from cloud.dataset.example import LeftOut

_MAX_LISTED = 100


def show_left_out(left_out: Sequence["LeftOut"]) -> None:
    """Print the number of rows by reason, and up to 100 rows with file name and id on standard error."""
    from cloud.dataset.example import count_reasons  # noqa: PLC0415  # loads NumPy

    for one in left_out[:_MAX_LISTED]:
        print_error(f"left out: {one}")
    for reason, count in count_reasons(left_out).items():
        print_line(f"{count} rows left out: {reason}")
    if left_out:
        print_line("'gleaner cloud list', 'relabel' and 'forget' show, correct and remove photos")
