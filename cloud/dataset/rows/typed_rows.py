"""Read rows of the table as a type; a damaged one is left out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec
import structlog

T = TypeVar("T")

log = structlog.get_logger()


def typed_rows(rows: Iterable[Mapping[str, object]], type_: type[T]) -> Iterator[T]:
    """Yield rows as a type, without those that are not of it; their number is logged at the end.

    Lance has no checksums: a flipped bit can make a column null, or a text of other characters.

    Args:
        rows: By name of the column.
        type_: Struct with some of the columns.
    """
    left_out, reason = 0, ""
    for row in rows:
        try:
            one = msgspec.convert(row, type_)
        except msgspec.ValidationError as error:
            left_out, reason = left_out + 1, str(error)
        else:
            yield one
    if left_out:
        log.warning("store.rows_left_out", rows=left_out, read_as=type_.__name__, error=reason)
