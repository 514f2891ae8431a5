"""The quarantine: what arrived as a sample and cannot be used, kept for a person to look at.

A second Lance table beside the dataset, so that several collectors share it wherever the dataset is. It is
bounded in rows and bytes; the oldest go, down to three quarters of the bounds, so that it is not rewritten
with every message. What `put` returned from is on the disk.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import lance
import pyarrow as pa

from cloud.dataset.durable_commit import exclusive, merge, sync_fragments, sync_version
from cloud.dataset.lance_table import Table
from schemas.codec import content_id
from schemas.errors import TransientError

_SUFFIX = "-quarantine"
_LEFT = 0.75
_FRAGMENTS = 64
# Nobody trains from the quarantine: a version is kept for those who are just reading it.
_VERSIONS_KEPT_S = 60.0
_SCHEMA = pa.schema(
    [
        pa.field(
            "photo_id",
            pa.string(),
            nullable=False,
            metadata={"lance-schema:unenforced-primary-key": "true"},
        ),
        ("revision", pa.int64()),
        ("node", pa.string()),
        ("reason", pa.string()),
        ("received_at_ms", pa.int64()),
        ("size_bytes", pa.int64()),
        ("payload", pa.large_binary()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A message that cannot be used.

    Args:
        photo_id: Its id, None if it cannot be read: then there is nobody to answer.
        node: The edge node in its topic.
        reason: Why it cannot be used.
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
        """What it is kept under: its id, or the digest of its payload."""
        return self.photo_id or content_id(self.payload)


class Kept(NamedTuple):
    """A row as far as the bounds look at it; the order is that in which rows go."""

    received_at_ms: int
    photo_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that is kept."""

    rows: int
    size_bytes: int


def surplus(kept: Iterable[Kept], bounds: Bounds) -> list[Kept]:
    """Return the rows that have to go, the newest of them first; none while the bounds hold."""
    newest_first = sorted(kept, reverse=True)
    if len(newest_first) <= bounds.rows and sum(row.size_bytes for row in newest_first) <= bounds.size_bytes:
        return []
    rows = size_bytes = 0
    for row in newest_first:
        if rows + 1 > bounds.rows * _LEFT or size_bytes + row.size_bytes > bounds.size_bytes * _LEFT:
            break
        rows, size_bytes = rows + 1, size_bytes + row.size_bytes
    return newest_first[rows:]


@dataclass(frozen=True)
class Quarantine:
    """The table. Open it with `Quarantine.open`; there is nothing to close.

    Args:
        table: Where it is.
    """

    table: Table

    @classmethod
    def open(cls, dataset: str | Path, *, create: bool = True) -> "Quarantine":
        """Open the quarantine of a dataset.

        Args:
            dataset: Path or URL of the dataset.
            create: Make an empty one if there is none.

        Raises:
            PermanentError: There is none, or it has a layout that is not known.
            TransientError: The place cannot be reached or written now.
        """
        return cls(Table.open(f"{str(dataset).rstrip('/')}{_SUFFIX}", _SCHEMA, create=create))

    def put(self, refused: Sequence[Refused], bounds: Bounds) -> int:
        """Keep messages; of those with one id the first is kept.

        Args:
            refused: Any number; memory is that of their payloads.
            bounds: The most that stays.

        Returns:
            How many older ones had to go.

        Raises:
            TransientError: The table cannot be written now; nothing of this call is promised.
        """
        wanted = {message.key: message for message in reversed(refused)}
        try:
            with exclusive(self.table.root):
                dataset = self.table.at()
                kept = {row.photo_id for row in self._kept(dataset)}
                new = [_record(message) for key, message in wanted.items() if key not in kept]
                if new:
                    merge(dataset, pa.Table.from_pylist(new, schema=_SCHEMA), self.table.root)
                    dataset = self.table.at()
                dropped = surplus(self._kept(dataset), bounds)
                if dropped:
                    self._drop(dataset, dropped[0])
        except OSError as error:
            raise self.table.unavailable("a commit", error) from error
        with contextlib.suppress(TransientError):  # the messages are on the disk; the next ones tidy up
            if dropped or self.table.fragments() > _FRAGMENTS:
                self.table.compact()
                self.table.clean_up(_VERSIONS_KEPT_S)
        return len(dropped)

    def newest(self, limit: int) -> Iterator[Refused]:
        """Yield what is kept, the newest first, at most so many; only their payloads are read.

        Raises:
            TransientError: The table cannot be read now, or no further.
        """
        dataset = self.table.at()
        with self.table.reading():
            for row in sorted(self._kept(dataset), reverse=True)[:limit]:
                (found,) = dataset.to_table(
                    columns=["photo_id", "node", "reason", "received_at_ms", "payload"],
                    filter=f"photo_id = '{row.photo_id}'",
                ).to_pylist()
                yield Refused(**found)

    def _kept(self, dataset: lance.LanceDataset) -> list[Kept]:
        return [Kept(**row) for row in dataset.to_table(columns=list(Kept._fields)).to_pylist()]

    def _drop(self, dataset: lance.LanceDataset, newest: Kept) -> None:
        """Delete a row and all that are older: the marks reach the disk before the version that has them."""
        at_ms, photo_id, _ = newest
        condition = f"received_at_ms < {at_ms} OR (received_at_ms = {at_ms} AND photo_id <= '{photo_id}')"
        left = {fragment: fragment.delete(condition) for fragment in dataset.get_fragments()}
        gone = [fragment.fragment_id for fragment, rest in left.items() if rest is None]
        changed = [rest for fragment, rest in left.items() if rest not in (None, fragment.metadata)]
        sync_fragments(self.table.root, changed)
        operation = lance.LanceOperation.Delete(changed, gone, condition)
        done = lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
        sync_version(self.table.root, done.version)


def _record(message: Refused) -> dict[str, object]:
    own = {"photo_id": message.key, "revision": 1, "size_bytes": len(message.payload)}
    return asdict(message) | own
