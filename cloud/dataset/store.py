"""The dataset: one Lance table on a local path or an object store, shared by several collectors.

Every write is a transaction of `row_transaction.py`, decided by a plain function of `row_changes.py`. So each
photo is stored exactly once (guarantee G2). When a method returns, its commit is on the disk.

All methods block, and are safe to call from several threads; call them from asyncio by `asyncio.to_thread`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pyarrow.compute as pc

from bus.mqtt.presence import now_ms
from cloud.dataset.labels import Label, LabelChange, Withdrawal
from cloud.dataset.rows.forgotten import barrier_id, barrier_ids, raise_barrier
from cloud.dataset.rows.row_changes import LabelOutcome, Outcome, apply_labels, apply_samples
from cloud.dataset.rows.row_transaction import change_rows
from cloud.dataset.schema import SCHEMA, STATE_COLUMNS, Record, Row
from cloud.dataset.table.durable_commit import sync_tag, sync_version, writer_lock
from cloud.dataset.table.lance_package import ColumnOrdering
from cloud.dataset.table.lance_table import BATCH_ROWS, Table
from schemas.class_names import NEITHER
from schemas.errors import PermanentError, TransientError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.text import escaped, without_secrets

__all__ = ["HAS_HUMAN_CLASS", "HAS_IMAGE", "Label", "LabelOutcome", "Outcome", "Row", "Store", "Withdrawal"]

HAS_IMAGE = "received_at_ms IS NOT NULL AND forgotten_at_ms IS NULL"
"""SQL condition: the photo is there: it has arrived, not only a label for it, and was not forgotten."""
HAS_HUMAN_CLASS = f"human_label != '{NEITHER}'"
"""SQL condition: the photo has a human label other than `NEITHER`."""

_CHANGES_PER_COMMIT = 256
MODEL_TAG = "model-"
"""Prefix of a tag that names what a model was trained from; its number follows."""
_TRAINED = "gleaner.trained"


@dataclass(frozen=True)
class Store:
    """The photos and their labels. Open it with `Store.open`; it holds no resource that must be closed.

    Args:
        table: The Lance table.
    """

    table: Table

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True) -> "Store":
        """Open the dataset; safe to call from several processes at once.

        Args:
            url: Local path, file://, s3://, gs:// or az:// URL; credentials come from the environment.
            create: Create an empty one if it does not exist.

        Raises:
            PermanentError: It does not exist, the URL is invalid, or the columns are unknown.
            TransientError: The location cannot be reached or written now.
        """
        return cls(Table.open(url, SCHEMA, create=create))

    @property
    def location(self) -> str:
        """Where it is, for people: an absolute path, or a URL without user and query; of bounded length."""
        root = self.table.root
        shown = without_secrets(self.table.url) if root is None else str(root.absolute())
        return escaped(shown)[:MAX_TEXT_CHARS]

    def upsert(
        self, samples: Sequence[Row], harvested_ms: Mapping[str, int] = MappingProxyType({})
    ) -> dict[str, Outcome]:
        """Store photos, each id once, even if other processes store the same ids at the same time.

        Args:
            samples: Any number; all their images are held in memory.
            harvested_ms: When a sample was harvested, by its id, UTC: it may have been forgotten since.

        Returns:
            By id, `stored`, `duplicate`, or `forgotten` for one that a barrier keeps out. If an id occurs
            twice in one call, its first row is stored. On an object store a call that raced with another
            writer may return `duplicate` for rows that it stored.

        Raises:
            TransientError: The table cannot be written now; any of the rows may be missing.
        """
        rows: dict[str, Row] = {}
        for row in samples:
            rows.setdefault(row.photo_id, row)
        cameras = {(rows[key].node, rows[key].device) for key in harvested_ms}
        barriers = {barrier for camera in cameras for barrier in barrier_ids(*camera)}
        ids = [*rows, *barriers]
        return change_rows(
            self.table, ids, STATE_COLUMNS, lambda existing: apply_samples(rows, existing, harvested_ms)
        )

    def keep_out(self, node: str | None, device: str | None, before_ms: int) -> None:
        """Raise a barrier: samples of a camera that were harvested before a time are never stored.

        Args:
            node: Edge node, None for all.
            device: Device of the node, None for all.
            before_ms: By the edge's clock, UTC.

        Raises:
            TransientError: The table cannot be written now.
        """
        key, now = barrier_id(node, device), now_ms()

        def decide(existing: dict[str, Record]) -> tuple[list[Record], dict[str, bool]]:
            record = raise_barrier(key, before_ms, existing.get(key), now)
            return ([], {}) if record is None else ([record], {key: True})

        change_rows(self.table, [key], SCHEMA.names, decide)

    def label(self, labels: Sequence[LabelChange]) -> dict[str, LabelOutcome]:
        """Store labels and withdrawals; of each annotator kind the latest counts.

        Args:
            labels: Any number; the images of all their photos are held in memory.

        Returns:
            By id, `stored`, `waiting` (stored; the photo has not arrived), `superseded` (a label with the
            same or a later time is stored already, or there is nothing to withdraw) or `forgotten`. A time in
            the future counts as now.

        Raises:
            TransientError: The table cannot be written now; any of the labels may be missing.
        """
        ids = list({label.photo_id for label in labels})
        # All columns: Lance replaces whole rows, images included.
        now = now_ms()
        return change_rows(
            self.table, ids, SCHEMA.names, lambda existing: apply_labels(labels, existing, now)
        )

    def change(self, photo_ids: Sequence[str], decide: Callable[[Record], Record | None]) -> list[str]:
        """Change stored rows one by one, safe with concurrent writers.

        Args:
            photo_ids: Any number; the images of 256 photos at a time are held in memory.
            decide: Returns the row to write in place of a stored one, or None to leave it. Called again if
                another writer changed the row in between.

        Returns:
            Ids of the rows that were changed, in the given order; ids without a row are left out.

        Raises:
            TransientError: The table cannot be written now; the rows of full batches before are changed.
        """

        def decide_all(existing: dict[str, Record]) -> tuple[list[Record], dict[str, bool]]:
            written = {key: changed for key, row in existing.items() if (changed := decide(row)) is not None}
            return list(written.values()), dict.fromkeys(written, True)

        changed: set[str] = set()
        for start in range(0, len(photo_ids), _CHANGES_PER_COMMIT):
            batch = list(dict.fromkeys(photo_ids[start : start + _CHANGES_PER_COMMIT]))
            changed |= change_rows(self.table, batch, SCHEMA.names, decide_all).keys()
        return [photo_id for photo_id in dict.fromkeys(photo_ids) if photo_id in changed]

    @property
    def version(self) -> int:
        """Number of the newest version."""
        return int(self.table.open_version().version)

    def tag(self, name: str, version: int | None = None) -> int:
        """Tag a version, None for the newest; `clean_up` never removes a tagged version.

        Returns:
            The version's number.

        Raises:
            PermanentError: The tag is taken by another version, or the version does not exist.
        """
        with writer_lock(self.table.root):
            dataset = self.table.open_version(version)
            tags = self.tags()
            if tags.get(name, dataset.version) != dataset.version:
                raise PermanentError(
                    f"tag {name!r}: taken by version {tags[name]}, cannot be given to {dataset.version}"
                )
            if name not in tags:
                dataset.tags.create(name, dataset.version)
            # The version first: a tag must not survive a power cut without what it names.
            sync_version(self.table.root, dataset.version)
            sync_tag(self.table.root, name)
            return int(dataset.version)

    def mark_trained(self) -> None:
        """Mark the dataset permanently: a version may have been trained on its photos, so none becomes gold.

        Raises:
            TransientError: The table cannot be written now.
        """
        try:
            with self.table.map_errors("cannot be written"), writer_lock(self.table.root):
                dataset = self.table.open_version()
                if _TRAINED not in dataset.config():
                    dataset.update_config({_TRAINED: "true"})
                sync_version(self.table.root, dataset.version)
        except TransientError:
            # On an object store nothing is locked: another training may have been first.
            if _TRAINED not in self.table.open_version().config():
                raise

    def is_trained(self) -> bool:
        """Return whether a version may have been trained on photos that the dataset had.

        Raises:
            TransientError: The table cannot be read now.
        """
        # Datasets of earlier versions have no mark, but the tags of their trainings.
        with self.table.map_errors():
            marked = _TRAINED in self.table.open_version().config()
        return marked or any(tag.startswith(MODEL_TAG) for tag in self.tags())

    def expire_labels(self, older_than_s: float) -> int:
        """Remove labels that have waited too long for their photo.

        Returns:
            How many photos they were for.

        Raises:
            TransientError: The table cannot be written now.
        """
        before_ms = now_ms() - int(older_than_s * 1000)
        # Rows of an earlier version have no such time; for them the time of the label stands.
        since = "coalesce(waiting_since_ms, human_at_ms, teacher_at_ms)"
        condition = f"received_at_ms IS NULL AND {since} < {before_ms}"
        with self.table.map_errors("cannot be written"), writer_lock(self.table.root):
            count = int(self.table.open_version().count_rows(condition))
            if count:
                self.table.delete(condition)
        return count

    def purge(self) -> list[str]:
        """Remove every version but the newest, and what rows that were replaced or deleted hold on the disk.

        Readers of older versions fail from now on.

        Returns:
            The tags that were removed with their versions.

        Raises:
            TransientError: The table cannot be written now.
        """
        if self.is_trained():
            self.mark_trained()  # their tags are removed
        tags = list(self.tags())
        with self.table.map_errors("cannot be written"), writer_lock(self.table.root):
            dataset = self.table.open_version()
            for name in tags:
                dataset.tags.delete(name)
        self.table.purge()
        return tags

    def tags(self) -> dict[str, int]:
        """Return version numbers by tag.

        Raises:
            TransientError: The table cannot be read now.
        """
        with self.table.map_errors():
            return {name: int(tag["version"]) for name, tag in self.table.open_version().tags.list().items()}

    def count(self, where: str = HAS_IMAGE, version: int | str | None = None) -> int:
        """Count the rows that meet a condition in SQL, by default the photos.

        Raises:
            PermanentError: The version does not exist.
            TransientError: The table cannot be read now.
            ValueError: The condition is invalid.
        """
        with self.table.map_errors():
            return int(self.table.open_version(version).count_rows(where))

    def has_column(self, name: str, version: int | str | None = None) -> bool:
        """Return whether a version of the table has a column; later versions of gleaner add some."""
        return name in self.table.open_version(version).schema.names

    def scan(
        self,
        columns: Sequence[str],
        *,
        where: str = HAS_IMAGE,
        version: int | str | None = None,
        limit: int | None = None,
        order: Sequence[str] = (),
    ) -> Iterator[dict[str, object]]:
        """Stream rows; only the given columns are read.

        Args:
            columns: Names of SCHEMA.
            where: Condition in SQL; the default leaves out labels without a photo.
            version: Number or tag, None for the newest.
            limit: Maximum number of rows.
            order: Columns to sort by, descending where the name has a leading `-`; else any order.

        Yields:
            One dict per row; memory is bounded by some batches of 32 images (4096 rows without images).

        Raises:
            PermanentError: The version does not exist.
            TransientError: The table cannot be read, or not to its end.
            ValueError: The condition or a column is invalid.
        """
        dataset = self.table.open_version(version)
        scanner = dataset.scanner(
            columns=list(columns),
            filter=where,
            limit=limit,
            order_by=[_ordering(name) for name in order] or None,
            batch_size=BATCH_ROWS if "image" in columns else 4096,
            batch_readahead=2,
            fragment_readahead=2,
            # Images are read after the filter, only for the rows that met it.
            late_materialization=["image"],
        )
        with self.table.reading(dataset):
            for batch in scanner.to_batches():
                yield from batch.to_pylist()

    def sizes(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        """Stream the photos with the length of each picture as `image_bytes`.

        Args:
            columns: Names of SCHEMA that are wanted too.

        Raises:
            TransientError: The table cannot be read.
        """
        dataset = self.table.open_version()
        scanner = dataset.scanner(
            columns=[*columns, "image"], filter=HAS_IMAGE, batch_size=BATCH_ROWS, batch_readahead=2
        )
        with self.table.reading(dataset):
            for batch in scanner.to_batches():
                lengths = pc.binary_length(batch["image"])
                yield from batch.select(list(columns)).append_column("image_bytes", lengths).to_pylist()

    def find(self, photo_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, object]]:
        """Read some columns of the rows with these ids, by id; an id without a row is left out.

        Raises:
            TransientError: The table cannot be read now.
        """
        dataset = self.table.open_version()
        # One look-up of a process that does not write reads less by a scan of the ids.
        holding = self.table.may_hold(dataset, photo_ids) if self.table.knows_ids else None
        return self.table.read_rows(dataset, holding, photo_ids, list(columns))


def _ordering(name: str) -> ColumnOrdering:
    return ColumnOrdering(name.removeprefix("-"), ascending=not name.startswith("-"))
