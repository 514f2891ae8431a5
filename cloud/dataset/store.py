"""The dataset: one Lance table on a local path or an object store, written by several collectors at once.

Exactly once (guarantee G2): every write reads the stored rows of its ids, decides with a plain function of
`cloud/dataset/schema.py`, and commits with `cloud/dataset/durable_commit.py`; if another writer was first,
it reads and decides again. When a method returns, its commit is on the disk.

There is no index on `photo_id`: the ids are scanned (about 10 ms at 50 000 rows, 70 ms at 550 000), because
Lance loses its check against two inserts of one key as soon as a merge goes through an index.

Blocking throughout and safe to call from several threads; an asyncio caller uses a thread.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lance
import pyarrow as pa
from lance.dataset import ColumnOrdering

from cloud.dataset.durable_commit import exclusive, merge, sync_tag, sync_version
from cloud.dataset.labels import Label, Withdrawal, Word
from cloud.dataset.lance_table import BATCH_ROWS, Table
from cloud.dataset.schema import SCHEMA, STATE, LabelOutcome, Outcome, Record, Row, with_labels, with_samples
from schemas.errors import PermanentError, TransientError
from schemas.messages import NEITHER

__all__ = ["NAMED", "PHOTOS", "Label", "LabelOutcome", "Outcome", "Row", "Store", "Withdrawal"]

PHOTOS = "received_at_ms IS NOT NULL"
"""Condition that leaves out the labels that still wait for their photo."""
NAMED = f"human_label != '{NEITHER}'"
"""Condition that a person named one of the classes."""

_T = TypeVar("_T")
_ATTEMPTS = 20
_IDS_PER_LOOKUP = 1024


@dataclass(frozen=True)
class Store:
    """The photos and their labels. Open it with `Store.open`; there is nothing to close.

    Args:
        table: Where they are kept.
    """

    table: Table

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True) -> "Store":
        """Open the dataset; safe if several processes do so at once.

        Args:
            url: Local path, file://, s3://, gs:// or az:// URL; credentials come from the environment.
            create: Make an empty one if there is none.

        Raises:
            PermanentError: There is none, none can be at such a place, or it has a layout that is not known.
            TransientError: The place cannot be reached or written now.
        """
        return cls(Table.open(url, SCHEMA, create=create))

    def upsert(self, samples: Sequence[Row]) -> dict[str, Outcome]:
        """Store photos, each id once, whoever else stores it at the same time.

        Args:
            samples: Any number; memory is that of their images.

        Returns:
            By id, `stored` or `duplicate`. An id twice in one call is stored once; its first row counts.
            On an object store a call that raced with another writer may say `duplicate` of what it stored.

        Raises:
            TransientError: The table cannot be written now; nothing of this call is promised.
        """
        rows: dict[str, Row] = {}
        for row in samples:
            rows.setdefault(row.photo_id, row)
        return self._write(list(rows), STATE, lambda existing: with_samples(rows, existing))

    def label(self, labels: Sequence[Word]) -> dict[str, LabelOutcome]:
        """Store what persons and teachers say; of each judge what was said last holds.

        Args:
            labels: Any number; memory is that of the images they belong to.

        Returns:
            By id, `stored`, `waiting` (stored; its photo has not arrived) or `superseded` (something said
            at the same time or later is there already, or there is nothing to take back).

        Raises:
            TransientError: The table cannot be written now; nothing of this call is promised.
        """
        ids = list({label.photo_id for label in labels})
        return self._write(ids, SCHEMA.names, lambda existing: with_labels(labels, existing))

    @property
    def version(self) -> int:
        """Number of the newest version."""
        return int(self.table.at().version)

    def tag(self, name: str, version: int | None = None) -> int:
        """Name a version, so that it is kept for ever; None names the newest.

        Returns:
            The version's number.

        Raises:
            PermanentError: The name stands for another version, or there is no such version.
        """
        with exclusive(self.table.root):
            dataset = self.table.at(version)
            named = self.tags()
            if named.setdefault(name, dataset.version) != dataset.version:
                raise PermanentError(f"tag {name}", expected=f"version {dataset.version}", got=named[name])
            if name not in self.tags():
                dataset.tags.create(name, dataset.version)
            sync_version(self.table.root, dataset.version)
            sync_tag(self.table.root, name)
            return int(dataset.version)

    def tags(self) -> dict[str, int]:
        """Return the named versions.

        Raises:
            TransientError: The table cannot be read now.
        """
        with self.table.reading():
            return {name: int(tag["version"]) for name, tag in self.table.at().tags.list().items()}

    def count(self, where: str = PHOTOS, version: int | str | None = None) -> int:
        """Count the rows that meet a condition in SQL, by default the photos.

        Raises:
            PermanentError: There is no such version.
            TransientError: The table cannot be read now.
        """
        with self.table.reading():
            return int(self.table.at(version).count_rows(where))

    def scan(
        self,
        columns: Sequence[str],
        *,
        where: str = PHOTOS,
        version: int | str | None = None,
        limit: int | None = None,
        order: Sequence[str] = (),
    ) -> Iterator[dict[str, object]]:
        """Read rows as they come; only the columns asked for are read.

        Args:
            columns: Names of SCHEMA.
            where: Condition in SQL; the default leaves out labels that wait for their photo.
            version: Number or tag, None for the newest.
            limit: At most so many.
            order: Columns to sort by, the largest first where a `-` is before the name; else any order.

        Yields:
            One dict per row; memory is bounded by some batches of 32 images (4096 rows without images).

        Raises:
            PermanentError: There is no such version.
            TransientError: The table cannot be read now, or no further.
        """
        scanner = self.table.at(version).scanner(
            columns=list(columns),
            filter=where,
            limit=limit,
            order_by=[_ordering(name) for name in order] or None,
            batch_size=BATCH_ROWS if "image" in columns else 4096,
            batch_readahead=2,
            fragment_readahead=2,
            late_materialization=["image"],
        )
        with self.table.reading():
            for batch in scanner.to_batches():
                yield from batch.to_pylist()

    def find(self, photo_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, object]]:
        """Read some columns of the rows with these ids, by id; an id without a row is left out.

        Raises:
            TransientError: The table cannot be read now.
        """
        return self._lookup(self.table.at(), photo_ids, list(columns))

    def _write(
        self,
        photo_ids: list[str],
        columns: list[str],
        decide: Callable[[dict[str, Record]], tuple[list[Record], dict[str, _T]]],
    ) -> dict[str, _T]:
        """Read, decide, commit; again if another writer changed one of the rows in between."""
        if not photo_ids:
            return {}
        try:
            for _ in range(_ATTEMPTS):
                with exclusive(self.table.root):
                    dataset = self.table.at()
                    existing = self._lookup(dataset, photo_ids, columns)
                    records, outcomes = decide(existing)
                    if not records:
                        # The version that is answered for may be that of a writer killed before its fsync.
                        sync_version(self.table.root, dataset.version)
                        return outcomes
                    for record in records:
                        before = existing.get(record["photo_id"])
                        record["revision"] = 1 if before is None else before["revision"] + 1
                    written = pa.Table.from_pylist(records, schema=SCHEMA)
                    if merge(dataset, written, self.table.root) == len(records):
                        return outcomes
        except OSError as error:
            raise self.table.unavailable("a commit", error) from error
        raise TransientError(
            f"table {self.table.url}", expected=f"a commit in {_ATTEMPTS} attempts", got="other writers"
        )

    def _lookup(
        self, dataset: lance.LanceDataset, photo_ids: Sequence[str], columns: list[str]
    ) -> dict[str, Record]:
        """Read columns of the rows with these ids; images only if asked for and only of these rows."""
        found: dict[str, Record] = {}
        for start in range(0, len(photo_ids), _IDS_PER_LOOKUP):
            quoted = ", ".join(f"'{photo_id}'" for photo_id in photo_ids[start : start + _IDS_PER_LOOKUP])
            with self.table.reading():
                rows = dataset.to_table(
                    columns=list({"photo_id": None} | dict.fromkeys(columns)),
                    filter=f"photo_id IN ({quoted})",
                    late_materialization=["image"],
                )
            found |= {record["photo_id"]: record for record in rows.to_pylist()}
        return found


def _ordering(name: str) -> ColumnOrdering:
    return ColumnOrdering(name.removeprefix("-"), ascending=not name.startswith("-"))
