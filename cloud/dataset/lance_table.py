"""A Lance table at its place: made if there is none, brought to today's layout, opened anew for each use.

Tidying runs beside writers: `compact` joins small fragments, `clean_up` forgets old versions.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import lance
import pyarrow as pa
import structlog
from lance.optimize import Compaction

from cloud.dataset.durable_commit import (
    drop_torn_manifests,
    exclusive,
    local_root,
    make_folders,
    sync_fragments,
    sync_version,
)
from schemas.errors import PermanentError, TransientError

_METADATA_CACHE_BYTES = 64 * 1024 * 1024
# A fragment of 50 kB photos is then 100 MB: small enough to rewrite, large enough to scan few files.
_ROWS_PER_FRAGMENT = 2048
BATCH_ROWS = 32
"""Images in one read batch; Lance holds several batches at a time."""

# Where in Lance's own source it says so, and whatever follows on further lines.
_RUST_SOURCE = re.compile(r"(, \S+\.rs:\d+:\d+.*|\n.*)", re.DOTALL)

_BAD_QUERY = "Invalid user input"

log = structlog.get_logger()


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


def _new_session() -> lance.Session:
    return lance.Session(metadata_cache_size_bytes=_METADATA_CACHE_BYTES)


@dataclass(frozen=True)
class Table:
    """A table. Open it with `Table.open`; there is nothing to close.

    Args:
        url: Path or URL, as Lance takes it.
        root: Its folder if it is local.
    """

    url: str
    root: Path | None
    _session: lance.Session = field(default_factory=_new_session, repr=False, compare=False)

    @classmethod
    def open(cls, url: str | Path, schema: pa.Schema, *, create: bool = True) -> "Table":
        """Make a table ready for this version: there, whole, and of today's layout.

        Args:
            url: Local path, file://, s3://, gs:// or az:// URL; credentials come from the environment.
            schema: Today's layout. A layout is changed by further columns, which are null in older rows.
            create: Make an empty one if there is none.

        Raises:
            PermanentError: There is none, none can be at such a place, or it has a layout that is not known.
            TransientError: The place cannot be reached or written now.
        """
        root = local_root(str(url))
        table = cls(str(url if root is None else root), root)
        try:
            table._prepare(schema, create=create)
        except (FileExistsError, NotADirectoryError, ValueError) as error:  # Lance knows no such URL
            said = table.unavailable("a folder or URL", error)
            raise PermanentError(said.subject, expected=said.expected, got=said.got) from None
        except OSError as error:
            raise table.unavailable("a place to read and write", error) from None
        return table

    def at(self, version: int | str | None = None) -> lance.LanceDataset:
        """Open a version, None for the newest. Each call opens anew: a handle is no one's shared state.

        Raises:
            PermanentError: There is no such version.
            TransientError: There is no table now; it is never made anew, because it may come back.
        """
        try:
            return lance.dataset(self.url, version=version, session=self._session)
        except (OSError, ValueError) as error:
            if version is None or isinstance(error, OSError):
                raise self.unavailable("to be there", error) from None
            got = _said(error)
            raise PermanentError(
                f"version {version} of {self.url}", expected="one that exists", got=got
            ) from None

    def unavailable(self, expected: str, error: Exception) -> TransientError:
        """Return the error to raise where Lance or the disk refuses."""
        return TransientError(f"table {self.url}", expected=expected, got=_said(error))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Name what Lance raises while rows are read; a condition or a column that is none is a ValueError.

        Raises:
            TransientError: A file is away or damaged. It may come back, by itself or from a backup.
        """
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:  # the latter where the file is read behind a scanner
            if _BAD_QUERY in str(error):
                raise ValueError(_said(error)) from None
            raise self.unavailable("to be readable", error) from error

    def fragments(self) -> int:
        """Count the fragments that are less than full: one per commit, until they are compacted."""
        return sum(fragment.physical_rows < _ROWS_PER_FRAGMENT for fragment in self.at().get_fragments())

    def compact(self) -> Compacted:
        """Rewrite small fragments into larger ones, beside running writers.

        Reading and rewriting happen without the lock; only the commit takes it. A rewrite whose rows were
        changed meanwhile is given up. Memory: some batches of 32 images.

        Raises:
            TransientError: The table cannot be written now.
        """
        dataset = self.at()
        options = {"target_rows_per_fragment": _ROWS_PER_FRAGMENT, "batch_size": BATCH_ROWS, "num_threads": 1}
        plan = Compaction.plan(dataset, options=options)
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
                    raise self.unavailable("a compaction", error) from error
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
                dataset = self.at()
                # Were the newest version lost, an older one that is removed now would be needed again.
                sync_version(self.root, dataset.version)
                removed = dataset.cleanup_old_versions(
                    timedelta(seconds=older_than_s), error_if_tagged_old_versions=False
                )
        except OSError as error:
            raise self.unavailable("a clean-up", error) from error
        return int(removed.old_versions)

    def _prepare(self, schema: pa.Schema, *, create: bool) -> None:
        if self.root is not None:
            if not create and not (self.root / "_versions").is_dir():
                raise self._absent()
            self.root.mkdir(parents=True, exist_ok=True)
        with exclusive(self.root):
            if self.root is not None:
                make_folders(self.root)
                drop_torn_manifests(self.root)
            dataset = self._opened(schema, create=create)
            self._migrate(dataset, schema)
            sync_version(self.root, dataset.version)

    def _absent(self) -> PermanentError:
        return PermanentError(f"table {self.url}", expected="a dataset", got="none there")

    def _opened(self, schema: pa.Schema, *, create: bool) -> lance.LanceDataset:
        try:
            return lance.dataset(self.url, session=self._session)
        except ValueError as error:
            if "not found" not in str(error):
                raise
        if not create:
            raise self._absent()
        try:
            return lance.write_dataset(schema.empty_table(), self.url, session=self._session)
        except OSError:
            return lance.dataset(self.url, session=self._session)  # another process made it in between

    def _migrate(self, dataset: lance.LanceDataset, schema: pa.Schema) -> None:
        """Add the columns that an earlier layout did not have; the caller holds the lock.

        Raises:
            PermanentError: It has columns that are not known, or it is no table of ours at all.
        """
        known = list(schema)
        unknown = [field.name for field in dataset.schema if field not in known]
        required = [field.name for field in known if not field.nullable]
        if unknown or not set(required) <= set(dataset.schema.names):
            raise PermanentError(
                f"table {self.url}",
                expected=f"columns of {schema.names}, as this version of gleaner knows them",
                got=f"others, maybe of a later version: {unknown}" if unknown else f"none of {required}",
            )
        missing = [field for field in known if field.name not in dataset.schema.names]
        if missing:
            dataset.add_columns(pa.schema(missing))
            log.info("table.migrated", table=self.url, columns=[field.name for field in missing])


def _said(error: Exception) -> str:
    """Return what Lance says, without where in its source it says so."""
    return _RUST_SOURCE.sub("", str(error))
