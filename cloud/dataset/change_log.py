"""Record who changed or removed photos manually, when and which, in a table next to the dataset.

One row per command, written before the change: after a crash, a recorded change may be missing, but none is
unrecorded. It keeps ids and names of classes, no pictures.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow as pa

from bus.mqtt.presence import now_ms
from cloud.dataset.table.durable_commit import insert, writer_lock
from cloud.dataset.table.lance_table import Table
from cloud.dataset.table.primary_key import primary_key

Action: TypeAlias = Literal[
    "label", "relabel", "rename-class", "merge-class", "forget", "forget-at-edges", "retain", "repair"
]

_SUFFIX = "-changes"
_SCHEMA = pa.schema(
    [
        primary_key("change_id"),
        ("revision", pa.int64()),
        ("at_ms", pa.int64()),
        ("by", pa.string()),
        ("action", pa.string()),
        ("detail", pa.string()),
        ("photo_ids", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One command.

    Attributes:
        at_ms: When it was given, UTC.
        by: Name of the person.
        action: The command.
        detail: Its arguments, for people.
        photo_ids: Ids of the photos that it was about.
    """

    at_ms: int
    by: str
    action: str
    detail: str
    photo_ids: list[str]


@dataclass(frozen=True)
class ChangeLog:
    """The change log of a dataset. It holds no resource that must be closed.

    Args:
        table: The Lance table.
    """

    table: Table

    @classmethod
    def open(cls, dataset: str | Path, *, create: bool = True) -> "ChangeLog":
        """Open the change log of a dataset.

        Args:
            dataset: Path or URL of the dataset.
            create: Create an empty log if it does not exist.

        Raises:
            PermanentError: It does not exist, or has unknown columns.
            TransientError: The location cannot be reached or written now.
        """
        table = Table.open(f"{str(dataset).rstrip('/')}{_SUFFIX}", _SCHEMA, create=create)
        return cls(table)

    def record(self, action: Action, by: str, detail: str, photo_ids: Sequence[str]) -> None:
        """Record a command before it is carried out.

        Raises:
            TransientError: The log cannot be written now.
        """
        change = Change(at_ms=now_ms(), by=by, action=action, detail=detail, photo_ids=list(photo_ids))
        row = asdict(change) | {"change_id": secrets.token_hex(16), "revision": 1}
        with writer_lock(self.table.root), self.table.map_errors("cannot be written"):
            written = pa.Table.from_pylist([row], schema=_SCHEMA)
            insert(self.table.open_version(), written, self.table.root, key="change_id")

    def newest(self, limit: int) -> Iterator[Change]:
        """Yield the newest changes, newest first.

        Raises:
            TransientError: The log cannot be read now.
        """
        columns = ["at_ms", "by", "action", "detail", "photo_ids"]
        with self.table.map_errors():
            rows = self.table.open_version().to_table(columns=columns).to_pylist()
        for row in sorted(rows, key=lambda row: row["at_ms"], reverse=True)[:limit]:
            yield Change(**row)
