"""The dataset: one Lance table on a local path or an object store, written by several collectors at once.

Exactly once (guarantee G2): every write reads the stored rows of its ids, decides with a plain function of
`cloud/rows.py`, and commits with `cloud/commit.py`; if another writer came between, it reads and decides
again. When a method returns, its commit is on the disk.

There is no index on `photo_id`: the ids are scanned (about 10 ms at 50 000 rows, 70 ms at 550 000), because
Lance loses its check against two inserts of one key as soon as a merge goes through an index.

Blocking throughout and safe to call from several threads; an asyncio caller uses a thread.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import lance
import pyarrow as pa
from lance.optimize import Compaction

from cloud import table
from cloud.commit import exclusive, merge, sync_fragments, sync_tag, sync_version
from cloud.rows import (
    SCHEMA,
    STATE,
    Label,
    LabelOutcome,
    Outcome,
    Record,
    Row,
    with_labels,
    with_samples,
)
from schemas.errors import PermanentError, TransientError

__all__ = ["PHOTOS", "Compacted", "Label", "LabelOutcome", "Outcome", "Row", "Store"]

PHOTOS = "received_at_ms IS NOT NULL"
"""Condition that leaves out the labels that still wait for their photo."""

_T = TypeVar("_T")
_ATTEMPTS = 20
_IDS_PER_LOOKUP = 1024
# A fragment of 50 kB photos is then 100 MB: small enough to rewrite, large enough to scan few files.
_ROWS_PER_FRAGMENT = 2048
# Images in one read batch; Lance holds several batches at a time.
_BATCH_ROWS = 32


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Args:
        fragments_removed: Small fragments that were rewritten.
        fragments_added: Fragments that took their place.
        conflicts: Rewrites given up because a writer changed their rows meanwhile; the next run takes them.
    """

    fragments_removed: int = 0
    fragments_added: int = 0
    conflicts: int = 0


@dataclass(frozen=True)
class Store:
    """The table. Open it with `Store.open`; there is nothing to close.

    Args:
        url: Path or URL of the table.
        root: Its folder if it is local.
    """

    url: str
    root: Path | None
    _session: lance.Session = field(default_factory=table.new_session, repr=False, compare=False)

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True) -> "Store":
        """Open the table; safe if several processes do so at once.

        Args:
            url: Local path, file://, s3://, gs:// or az:// URL; credentials come from the environment.
            create: Make an empty one if there is none.

        Raises:
            PermanentError: There is none, none can be made at such a place, or it has another layout.
            TransientError: The place cannot be reached or written now.
        """
        store = cls(*table.place(url))
        table.prepare(store.url, store.root, SCHEMA, create=create)
        return store

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

    def label(self, labels: Sequence[Label]) -> dict[str, LabelOutcome]:
        """Store what persons and teachers say; of each judge the label with the latest time holds.

        Args:
            labels: Any number; memory is that of the images they belong to.

        Returns:
            By id, `stored`, `waiting` (stored; its photo has not arrived) or `superseded` (something said
            at the same time or later is there already).

        Raises:
            TransientError: The table cannot be written now; nothing of this call is promised.
        """
        ids = list({label.photo_id for label in labels})
        return self._write(ids, SCHEMA.names, lambda existing: with_labels(labels, existing))

    @property
    def version(self) -> int:
        """Number of the newest version."""
        return int(self._at(None).version)

    def tag(self, name: str, version: int | None = None) -> int:
        """Name a version, so that it is kept for ever; None names the newest.

        Returns:
            The version's number.

        Raises:
            PermanentError: The name stands for another version, or there is no such version.
        """
        with exclusive(self.root):
            dataset = self._at(version)
            named = self.tags()
            if named.setdefault(name, dataset.version) != dataset.version:
                raise PermanentError(f"tag {name}", expected=f"version {dataset.version}", got=named[name])
            if name not in self.tags():
                dataset.tags.create(name, dataset.version)
            sync_version(self.root, dataset.version)
            sync_tag(self.root, name)
            return int(dataset.version)

    def tags(self) -> dict[str, int]:
        """Return the named versions."""
        return {name: int(tag["version"]) for name, tag in self._at(None).tags.list().items()}

    def count(self, where: str = PHOTOS, version: int | str | None = None) -> int:
        """Count the rows that meet a condition in SQL, by default the photos."""
        return int(self._at(version).count_rows(where))

    def scan(
        self,
        columns: Sequence[str],
        *,
        where: str = PHOTOS,
        version: int | str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, object]]:
        """Read rows as they come; only the columns asked for are read.

        Args:
            columns: Names of SCHEMA.
            where: Condition in SQL; the default leaves out labels that wait for their photo.
            version: Number or tag, None for the newest.
            limit: At most so many.

        Yields:
            One dict per row; memory is bounded by some batches of 32 images (4096 rows without images).
        """
        scanner = self._at(version).scanner(
            columns=list(columns),
            filter=where,
            limit=limit,
            batch_size=_BATCH_ROWS if "image" in columns else 4096,
            batch_readahead=2,
            fragment_readahead=2,
            late_materialization=["image"],
        )
        for batch in scanner.to_batches():
            yield from batch.to_pylist()

    def find(self, photo_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, object]]:
        """Read some columns of the rows with these ids, by id; an id without a row is left out."""
        return self._lookup(self._at(None), photo_ids, list(columns))

    def compact(self) -> Compacted:
        """Rewrite small fragments into larger ones, beside running writers.

        Reading and rewriting happen without the lock; only the commit takes it. A rewrite whose rows were
        changed meanwhile is given up. Memory: some batches of 32 images.
        """
        dataset = self._at(None)
        plan = Compaction.plan(
            dataset,
            options={
                "target_rows_per_fragment": _ROWS_PER_FRAGMENT,
                "batch_size": _BATCH_ROWS,
                "num_threads": 1,
            },
        )
        removed = added = conflicts = 0
        for task in plan.tasks:
            try:
                rewrite = task.execute(dataset)
                with exclusive(self.root):
                    sync_fragments(self.root, rewrite.new_fragments)
                    metrics = Compaction.commit(dataset, [rewrite])
                    sync_version(self.root, dataset.version)
            except OSError as error:
                if "conflict" not in str(error):
                    raise table.unavailable(self.url, "a compaction", error) from error
                conflicts += 1
            else:
                removed += metrics.fragments_removed
                added += metrics.fragments_added
        return Compacted(removed, added, conflicts)

    def clean_up(self, older_than_s: float = 2 * 86_400.0) -> int:
        """Remove versions older than that, never a tagged one or the newest, and the files only they used.

        Args:
            older_than_s: Longer than any reader keeps a version without naming it, and any compaction runs.

        Returns:
            How many versions were removed.

        Raises:
            TransientError: The table cannot be written now.
        """
        try:
            with exclusive(self.root):
                dataset = self._at(None)
                # Were the newest version lost, an older one that is removed now would be needed again.
                sync_version(self.root, dataset.version)
                removed = dataset.cleanup_old_versions(
                    timedelta(seconds=older_than_s), error_if_tagged_old_versions=False
                )
        except OSError as error:
            raise table.unavailable(self.url, "a clean-up", error) from error
        return int(removed.old_versions)

    def fragments(self) -> int:
        """Count the fragments that are less than full: one per commit, until they are compacted."""
        return sum(fragment.physical_rows < _ROWS_PER_FRAGMENT for fragment in self._at(None).get_fragments())

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
                with exclusive(self.root):
                    dataset = self._at(None)
                    existing = self._lookup(dataset, photo_ids, columns)
                    records, outcomes = decide(existing)
                    if not records:
                        # The version that is answered for may be that of a writer killed before its fsync.
                        sync_version(self.root, dataset.version)
                        return outcomes
                    for record in records:
                        before = existing.get(record["photo_id"])
                        record["revision"] = 1 if before is None else before["revision"] + 1
                    written = pa.Table.from_pylist(records, schema=SCHEMA)
                    if merge(dataset, written, self.root) == len(records):
                        return outcomes
        except OSError as error:
            raise table.unavailable(self.url, "a commit", error) from error
        raise TransientError(
            f"table {self.url}", expected=f"a commit in {_ATTEMPTS} attempts", got="other writers"
        )

    def _lookup(
        self, dataset: lance.LanceDataset, photo_ids: Sequence[str], columns: list[str]
    ) -> dict[str, Record]:
        """Read columns of the rows with these ids; images only if asked for and only of these rows."""
        found: dict[str, Record] = {}
        for start in range(0, len(photo_ids), _IDS_PER_LOOKUP):
            quoted = ", ".join(f"'{photo_id}'" for photo_id in photo_ids[start : start + _IDS_PER_LOOKUP])
            rows = dataset.to_table(
                columns=list({"photo_id": None} | dict.fromkeys(columns)),
                filter=f"photo_id IN ({quoted})",
                late_materialization=["image"],
            )
            found |= {record["photo_id"]: record for record in rows.to_pylist()}
        return found

    def _at(self, version: int | str | None) -> lance.LanceDataset:
        """Open a version, None for the newest. Each call opens anew: a handle is no one's shared state."""
        if version is None:
            return table.newest(self.url, self._session)
        try:
            return lance.dataset(self.url, version=version, session=self._session)
        except ValueError as error:
            raise PermanentError(
                f"version {version} of {self.url}", expected="one that exists", got=error
            ) from error
