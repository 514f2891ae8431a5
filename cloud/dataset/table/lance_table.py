"""Open a Lance table: create it, add missing columns, compact fragments and remove old versions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from cloud.dataset.table.durable_commit import (
    check_conditional_writes,
    drop_torn_manifests,
    local_root,
    make_folders,
    sync_fragments,
    sync_version,
    without_rows,
    writer_lock,
)
from cloud.dataset.table.known_ids import KnownIds
from cloud.dataset.table.lance_errors import (
    VersionRemovedError,
    is_bad_query,
    is_damaged_file,
    is_full_disk,
    lance_message,
)
from cloud.dataset.table.lance_package import Compaction, lance
from schemas.errors import PermanentError, TransientError

_METADATA_CACHE_BYTES = 64 * 1024 * 1024
# 100 MB of 50 kB photos: small enough to rewrite, large enough that a scan opens few files.
_ROWS_PER_FRAGMENT = 2048
_IDS_PER_LOOKUP = 1024
_PURGE_ATTEMPTS = 20
BATCH_ROWS = 32
"""Images in one read batch; Lance holds several batches at a time."""


log = structlog.get_logger()


@dataclass(frozen=True)
class CompactionResult:
    """Counts of a compaction.

    Args:
        fragments_removed: Small fragments that were rewritten.
        fragments_added: Fragments that replace them.
        conflicts: Rewrites dropped because a writer changed their rows; the next compaction retries them.
    """

    fragments_removed: int = 0
    fragments_added: int = 0
    conflicts: int = 0


def _new_session() -> lance.Session:
    return lance.Session(metadata_cache_size_bytes=_METADATA_CACHE_BYTES)


@dataclass(frozen=True)
class Table:
    """A Lance table. Open it with `Table.open`; it holds no resource that must be closed.

    Args:
        url: Path or URL for Lance.
        root: Its folder if it is local, else None.
    """

    url: str
    root: Path | None
    _session: lance.Session = field(default_factory=_new_session, repr=False, compare=False)
    _known_ids: KnownIds = field(default_factory=KnownIds, repr=False, compare=False)

    @classmethod
    def open(cls, url: str | Path, schema: pa.Schema, *, create: bool = True) -> "Table":
        """Open a table for reading and writing; repair a torn commit and add missing columns.

        Safe to call from several processes at once.

        Args:
            url: Local path, file://, s3://, gs:// or az:// URL; credentials come from the environment.
            schema: Columns of this version of gleaner. Later versions only add columns, null in older rows.
            create: Create an empty table if it does not exist.

        Raises:
            PermanentError: The table does not exist, the URL is invalid, or the columns are unknown.
            TransientError: The location cannot be reached or written now.
        """
        root = local_root(str(url))
        table = cls(str(url if root is None else root), root)
        try:
            table._prepare(schema, create=create)
        except (FileExistsError, NotADirectoryError, ValueError) as error:
            if root is not None and any((root / "_versions").glob("*.manifest")):
                raise PermanentError(
                    f"table {table.url}: its newest version cannot be read: {lance_message(error)}",
                    hint="'gleaner cloud repair' finds damaged files",
                ) from None
            # A file is in the way, or Lance does not support the URL's scheme.
            raise PermanentError(
                f"table {table.url}: not a folder or URL for a table: {lance_message(error)}"
            ) from None
        except OSError as error:
            raise table.transient_error("cannot be opened", error) from None
        return table

    def open_version(self, version: int | str | None = None) -> lance.LanceDataset:
        """Open a version by number or tag, None for the newest.

        Raises:
            PermanentError: The version does not exist.
            TransientError: The table is missing now; it is not created again, because a mount may come back.
        """
        # Lance handles are bound to a version and not safe to share: every use opens its own.
        try:
            return lance.dataset(self.url, version=version, session=self._session)
        except (OSError, ValueError) as error:
            if version is None or isinstance(error, OSError):
                raise self.transient_error("is missing", error) from None
            raise PermanentError(f"table {self.url}: no version {version}: {lance_message(error)}") from None

    def may_hold(self, dataset: lance.LanceDataset, photo_ids: Sequence[str]) -> list[lance.LanceFragment]:
        """Return the fragments of a version that may hold one of the photos; the others hold none of them.

        Raises:
            TransientError: The ids cannot be read now.
        """
        with self.map_errors():
            return self._known_ids.may_hold(dataset, photo_ids)

    @property
    def knows_ids(self) -> bool:
        """Whether `may_hold` costs little: it was called before."""
        return self._known_ids.loaded

    def read_rows(
        self,
        dataset: lance.LanceDataset,
        fragments: Sequence[lance.LanceFragment] | None,
        photo_ids: Sequence[str],
        columns: list[str],
    ) -> dict[str, dict[str, Any]]:
        """Read columns of the rows with these ids in some fragments, or in all, by id.

        Images are read only if they are asked for, and only those of these rows.

        Raises:
            TransientError: The table cannot be read now.
        """
        found: dict[str, dict[str, Any]] = {}
        if fragments is not None and not fragments:
            return found
        for start in range(0, len(photo_ids), _IDS_PER_LOOKUP):
            # No index on photo_id: with one, Lance no longer detects two inserts of one key. Ids are hex
            # digits: safe to quote.
            quoted = ", ".join(f"'{photo_id}'" for photo_id in photo_ids[start : start + _IDS_PER_LOOKUP])
            with self.map_errors():
                scanner = dataset.scanner(
                    columns=list({"photo_id": None} | dict.fromkeys(columns)),
                    filter=f"photo_id IN ({quoted})",
                    fragments=fragments,
                    # Large columns are read after the filter: 100 000 embeddings are half a gigabyte.
                    late_materialization=["image", "embedding"],
                )
                found |= {record["photo_id"]: record for record in scanner.to_table().to_pylist()}
        return found

    def transient_error(self, problem: str, error: Exception) -> TransientError:
        """Return the error to raise where Lance or the disk fails."""
        hint = "'gleaner cloud repair' finds damaged files" if is_damaged_file(error) else None
        if is_full_disk(error):
            hint = "free space on that disk"
        return TransientError(f"table {self.url} {problem}: {lance_message(error)}", hint=hint)

    @contextmanager
    def map_errors(self, problem: str = "cannot be read") -> Iterator[None]:
        """Map the errors that Lance raises while rows are read or merged.

        Args:
            problem: What cannot be done now, for the message.

        Raises:
            TransientError: A file is missing or damaged; it may come back, for example from a backup.
            ValueError: The SQL condition or a column name is invalid.
        """
        try:
            yield
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
            if is_bad_query(error):
                raise ValueError(lance_message(error)) from None
            raise self.transient_error(problem, error) from error

    @contextmanager
    def reading(self, dataset: lance.LanceDataset) -> Iterator[None]:
        """Map errors as `map_errors` does, and distinguish a version removed meanwhile from damaged files.

        The caller does not hold the lock.

        Raises:
            TransientError: A file is missing or damaged, or the version was removed while it was read.
            ValueError: The SQL condition or a column name is invalid.
        """
        try:
            with self.map_errors():
                yield
        except TransientError as error:
            # Under the lock: a clean-up removes the files of a version before the version itself.
            with writer_lock(self.root):
                try:
                    self.open_version(dataset.version)
                except PermanentError:
                    raise VersionRemovedError(
                        f"table {self.url}: version {dataset.version} was removed while it was read",
                        hint="try again; 'gleaner cloud forget' and 'retain' remove older versions",
                    ) from error
            raise

    def small_fragments(self) -> int:
        """Count the fragments that are not full: each commit adds one, and a compaction joins them."""
        fragments = self.open_version().get_fragments()
        return sum(fragment.physical_rows < _ROWS_PER_FRAGMENT for fragment in fragments)

    def compact(self, *, remove_deleted: bool = False) -> CompactionResult:
        """Rewrite small fragments into larger ones, concurrently with writers.

        A rewrite whose rows were changed by a writer is dropped and counted. Memory: some batches of 32
        images.

        Args:
            remove_deleted: Rewrite every fragment with a deleted row, too; by default only those with many.

        Raises:
            TransientError: The table cannot be written now.
        """
        dataset = self.open_version()
        options: dict[str, float] = {
            "target_rows_per_fragment": _ROWS_PER_FRAGMENT,
            "batch_size": BATCH_ROWS,
            "num_threads": 1,
        }
        if remove_deleted:
            options["materialize_deletions_threshold"] = 0.0
        plan = Compaction.plan(dataset, options=options)
        removed = added = conflicts = 0
        for task in plan.tasks:
            new_fragments: list[lance.FragmentMetadata] = []
            try:
                # Rewriting takes long and is harmless without the lock; only the commit takes it.
                rewrite = task.execute(dataset)
                new_fragments = rewrite.new_fragments
                with writer_lock(self.root):
                    sync_fragments(self.root, new_fragments)
                    metrics = Compaction.commit(dataset, [rewrite])
                    sync_version(self.root, dataset.version)
            except OSError as error:
                if "conflict" not in str(error):
                    raise self.transient_error("cannot be compacted", error) from error
                conflicts += 1
                self._discard(new_fragments)
            else:
                removed += metrics.fragments_removed
                added += metrics.fragments_added
        return CompactionResult(removed, added, conflicts)

    def _discard(self, fragments: Sequence[lance.FragmentMetadata]) -> None:
        """Remove the files of a rewrite that was not committed: Lance keeps them for a week.

        They may have a photo that is forgotten meanwhile. On an object store they stay for that week.
        """
        if self.root is None:
            return
        for path in (self.root / "data" / file.path for one in fragments for file in one.files):
            path.unlink(missing_ok=True)

    def clean_up(self, older_than_s: float = 2 * 86_400.0) -> int:
        """Remove old versions and the files that only they used; the newest and tagged ones stay.

        Args:
            older_than_s: Longer than any reader uses an untagged version, and than any compaction takes.

        Returns:
            How many versions were removed.

        Raises:
            TransientError: The table cannot be written now.
        """
        try:
            with writer_lock(self.root):
                dataset = self.open_version()
                # Its writer may have died before the sync. If a power cut took the newest version, an older
                # one that is removed here would be needed again.
                sync_version(self.root, dataset.version)
                removed = dataset.cleanup_old_versions(
                    timedelta(seconds=older_than_s), error_if_tagged_old_versions=False
                )
        except OSError as error:
            raise self.transient_error("cannot be cleaned up", error) from error
        return int(removed.old_versions)

    def purge(self) -> None:
        """Remove every version but the newest, and what rows that were replaced or deleted hold on the disk.

        Raises:
            TransientError: The table cannot be written now, or each attempt lost against a writer.
        """
        for _ in range(_PURGE_ATTEMPTS):
            if not self.compact(remove_deleted=True).conflicts:
                self.clean_up(0.0)
                return
        raise TransientError(
            f"table {self.url}: writers changed the rows around forgotten ones in each of {_PURGE_ATTEMPTS}"
            " attempts, so these are still on the disk",
            hint="the next 'gleaner cloud forget' or 'retain' removes them",
        )

    def delete(self, condition: str) -> None:
        """Delete the rows that meet a condition in SQL; the caller holds the lock.

        Raises:
            OSError: The table cannot be written now.
        """
        dataset = self.open_version()
        changed, emptied = without_rows(dataset.get_fragments(), condition)
        if not (emptied or changed):
            return
        sync_fragments(self.root, changed)
        operation = lance.LanceOperation.Delete(changed, emptied, condition)
        committed = lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
        sync_version(self.root, committed.version)

    def _prepare(self, schema: pa.Schema, *, create: bool) -> None:
        if self.root is not None:
            if not create and not (self.root / "_versions").is_dir():
                raise self._missing()
            self.root.mkdir(parents=True, exist_ok=True)
        with writer_lock(self.root):
            if self.root is not None:
                make_folders(self.root)
                # Before Lance opens the table: it fails on a torn manifest.
                drop_torn_manifests(self.root)
            dataset = self._open_or_create(schema, create=create)
            self._migrate(dataset, schema)
            sync_version(self.root, dataset.version)

    def _missing(self) -> PermanentError:
        return PermanentError(
            f"no dataset at {self.url}",
            hint="check the path, 'gleaner cloud import' and the collector create one",
        )

    def _open_or_create(self, schema: pa.Schema, *, create: bool) -> lance.LanceDataset:
        try:
            return lance.dataset(self.url, session=self._session)
        except ValueError as error:
            if "not found" not in str(error):
                raise
        if not create:
            raise self._missing()
        check_conditional_writes(self.url)
        try:
            return lance.write_dataset(schema.empty_table(), self.url, session=self._session)
        except OSError as error:
            # On an object store there is no lock: another process created it since.
            with suppress(ValueError):
                return lance.dataset(self.url, session=self._session)
            raise error from None  # for example, the disk is full

    def _migrate(self, dataset: lance.LanceDataset, schema: pa.Schema) -> None:
        """Add the columns that an older version of gleaner did not have; the caller holds the lock.

        Raises:
            PermanentError: It has unknown columns, or lacks the required ones.
        """
        known = list(schema)
        unknown = [field.name for field in dataset.schema if field not in known]
        required = [field.name for field in known if not field.nullable]
        # A newer gleaner may rely on its columns: refuse instead of writing rows without them.
        if unknown:
            raise PermanentError(
                f"table {self.url}: columns {unknown} are unknown to this version of gleaner",
                hint="upgrade gleaner, or choose another table",
            )
        if not set(required) <= set(dataset.schema.names):
            raise PermanentError(f"table {self.url}: not a table of gleaner: no column {', '.join(required)}")
        missing = [field for field in known if field.name not in dataset.schema.names]
        if missing:
            dataset.add_columns(pa.schema(missing))
            log.info("table.migrated", table=self.url, columns=[field.name for field in missing])
