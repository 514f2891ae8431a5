"""Change rows of the dataset in one transaction: read, decide, commit; again if another writer was faster.

On a local disk a lock keeps other writers out. On an object store there is none: what another writer changed
in between is detected at the commit, and the rows are read and decided again.
"""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from cloud.dataset.schema import SCHEMA, Record
from cloud.dataset.table.durable_commit import merge, replace, sync_version, writer_lock
from cloud.dataset.table.lance_table import Table
from schemas.errors import TransientError

_T = TypeVar("_T")
_ATTEMPTS = 20


def change_rows(
    table: Table,
    photo_ids: list[str],
    columns: list[str],
    decide: Callable[[dict[str, Record]], tuple[list[Record], dict[str, _T]]],
) -> dict[str, _T]:
    """Read rows, decide and commit; repeat if another writer changed one of the rows in between.

    Args:
        table: Of the dataset.
        photo_ids: Of the rows.
        columns: That `decide` needs.
        decide: From the stored rows by id to the rows to write and the outcomes; may be called again.

    Returns:
        The outcomes of the last decision, which is on the disk.

    Raises:
        TransientError: The table cannot be written now, or other writers were faster each time.
    """
    if not photo_ids:
        return {}
    try:
        for _ in range(_ATTEMPTS):
            with writer_lock(table.root):
                dataset = table.open_version()
                holding = table.may_hold(dataset, photo_ids)
                existing = table.read_rows(dataset, holding, photo_ids, columns)
                records, outcomes = decide(existing)
                if not records:
                    # The rows may come from a writer that was killed before its sync: a `duplicate` must not
                    # be answered for a row that a power cut can still take.
                    sync_version(table.root, dataset.version)
                    return outcomes
                for record in records:
                    before = existing.get(record["photo_id"])
                    record["revision"] = 1 if before is None else before["revision"] + 1
                written = pa.Table.from_pylist(records, schema=SCHEMA)
                with table.map_errors("cannot be written"):
                    if table.root is not None:
                        replace(dataset, written, holding, table.root)
                        return outcomes
                    # Fewer rows written: some had another revision meanwhile. Those written now are found as
                    # existing in the next attempt.
                    if merge(dataset, written) == len(records):
                        return outcomes
    except OSError as error:
        raise table.transient_error("cannot be written", error) from error
    raise TransientError(
        f"table {table.url}: other writers changed the same photos in each of {_ATTEMPTS} attempts"
    )
