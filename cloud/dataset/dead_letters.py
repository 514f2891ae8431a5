"""Keep samples that cannot be stored in the dataset, with the reason, in a bounded table next to it.

A Lance table with the dataset's name and a suffix, so that several collectors share it where the dataset
is. When a bound is reached, the oldest rows are deleted.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from cloud.dataset.table.durable_commit import insert, writer_lock
from cloud.dataset.table.lance_package import lance
from cloud.dataset.table.lance_table import Table
from cloud.dataset.table.primary_key import primary_key
from schemas.codec import content_id
from schemas.errors import TransientError

# The name on disk is part of the format: datasets of earlier versions have such tables.
_SUFFIX = "-quarantine"
# Deleting down to three quarters of a bound, not to the bound itself: else a full table would be rewritten
# with every message.
_FILL_AFTER_DROP = 0.75
_FRAGMENTS = 64
# Nothing is trained on this table; a version is kept only for those who are reading it now.
_VERSIONS_KEPT_S = 60.0
_SCHEMA = pa.schema(
    [
        primary_key("photo_id"),
        ("revision", pa.int64()),
        ("node", pa.string()),
        ("reason", pa.string()),
        ("received_at_ms", pa.int64()),
        ("size_bytes", pa.int64()),
        ("payload", pa.large_binary()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message that cannot be stored in the dataset.

    Args:
        photo_id: Its id; None if it cannot be read, and then no receipt can be sent.
        node: The edge node in its topic.
        reason: Why it cannot be stored.
        received_at_ms: When it arrived, UTC.
        payload: The message as it arrived.
    """

    photo_id: str | None
    node: str
    reason: str
    received_at_ms: int
    payload: bytes

    @property
    def key(self) -> str:
        """Its primary key: the photo id, or the digest of the payload."""
        return self.photo_id or content_id(self.payload)


class StoredRow(NamedTuple):
    """The columns that decide which rows are deleted; rows sort by age, oldest first."""

    received_at_ms: int
    photo_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Maximum number of rows and of payload bytes."""

    rows: int
    size_bytes: int


def rows_to_drop(stored: Iterable[StoredRow], bounds: Bounds) -> list[StoredRow]:
    """Return the rows to delete, newest first; empty while the table is within its bounds."""
    newest_first = sorted(stored, reverse=True)
    if len(newest_first) <= bounds.rows and sum(row.size_bytes for row in newest_first) <= bounds.size_bytes:
        return []
    max_rows, max_bytes = bounds.rows * _FILL_AFTER_DROP, bounds.size_bytes * _FILL_AFTER_DROP
    rows = size_bytes = 0
    for row in newest_first:
        if rows + 1 > max_rows or size_bytes + row.size_bytes > max_bytes:
            break
        rows, size_bytes = rows + 1, size_bytes + row.size_bytes
    return newest_first[rows:]


@dataclass(frozen=True)
class DeadLetterTable:
    """The dead-letter table of a dataset. It holds no resource that must be closed.

    Args:
        table: The Lance table.
    """

    table: Table

    @classmethod
    def open(cls, dataset: str | Path, *, create: bool = True) -> "DeadLetterTable":
        """Open the dead-letter table of a dataset.

        Args:
            dataset: Path or URL of the dataset.
            create: Create an empty table if it does not exist.

        Raises:
            PermanentError: It does not exist, or has unknown columns.
            TransientError: The location cannot be reached or written now.
        """
        return cls(Table.open(f"{str(dataset).rstrip('/')}{_SUFFIX}", _SCHEMA, create=create))

    def put(self, messages: Sequence[DeadLetter], bounds: Bounds) -> int:
        """Store messages durably, and delete the oldest if a bound is exceeded.

        Of messages with the same key the first is kept.

        Args:
            messages: Any number; all their payloads are held in memory.
            bounds: Limits of the table.

        Returns:
            How many older messages were deleted.

        Raises:
            TransientError: The table cannot be written now; any of the messages may be missing.
        """
        # Reversed, so that the first message of a key overwrites the later ones.
        by_key = {message.key: message for message in reversed(messages)}
        try:
            with writer_lock(self.table.root):
                dataset = self.table.open_version()
                stored = {row.photo_id for row in self._stored(dataset)}
                new = [_record(message) for key, message in by_key.items() if key not in stored]
                if new:
                    insert(
                        dataset, pa.Table.from_pylist(new, schema=_SCHEMA), self.table.root, key="photo_id"
                    )
                    dataset = self.table.open_version()
                dropped = rows_to_drop(self._stored(dataset), bounds)
                if dropped:
                    self._drop(dropped[0])
        except OSError as error:
            raise self.table.transient_error("cannot be written", error) from error
        # The messages are on the disk by now: a failed compaction must not make the caller put them again.
        with contextlib.suppress(TransientError):
            # Deleted rows occupy the disk until their fragment is rewritten and its old version removed.
            if dropped or self.table.small_fragments() > _FRAGMENTS:
                self.table.compact()
                self.table.clean_up(_VERSIONS_KEPT_S)
        return len(dropped)

    def remove(self, photo_ids: Sequence[str]) -> int:
        """Remove the messages of photos for good, bytes and older versions included.

        Returns:
            How many messages were removed.

        Raises:
            TransientError: The table cannot be written now.
        """
        wanted = set(photo_ids)
        with self.table.map_errors("cannot be written"), writer_lock(self.table.root):
            dataset = self.table.open_version()
            found = [row.photo_id for row in self._stored(dataset) if row.photo_id in wanted]
            if found:
                quoted = ", ".join(f"'{photo_id}'" for photo_id in found)
                self.table.delete(f"photo_id IN ({quoted})")
        if found:
            self.table.purge()
        return len(found)

    def newest(self, limit: int) -> Iterator[DeadLetter]:
        """Yield the newest messages, newest first; one payload is in memory at a time.

        Raises:
            TransientError: The table cannot be read, or not to its end.
        """
        dataset = self.table.open_version()
        with self.table.map_errors():
            for row in sorted(self._stored(dataset), reverse=True)[:limit]:
                (found,) = dataset.to_table(
                    columns=["photo_id", "node", "reason", "received_at_ms", "payload"],
                    filter=f"photo_id = '{row.photo_id}'",
                ).to_pylist()
                yield DeadLetter(**found)

    def _stored(self, dataset: lance.LanceDataset) -> list[StoredRow]:
        return [StoredRow(**row) for row in dataset.to_table(columns=list(StoredRow._fields)).to_pylist()]

    def _drop(self, newest: StoredRow) -> None:
        """Delete a row and all older ones; the caller holds the lock."""
        at_ms, photo_id, _ = newest
        same_time = f"received_at_ms = {at_ms} AND photo_id <= '{photo_id}'"
        self.table.delete(f"received_at_ms < {at_ms} OR ({same_time})")


def _record(message: DeadLetter) -> dict[str, object]:
    return asdict(message) | {"photo_id": message.key, "revision": 1, "size_bytes": len(message.payload)}
