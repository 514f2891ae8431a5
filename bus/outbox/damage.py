"""Damaged rows and files at rest: set aside, counted, and reported as `degraded`.

A row is moved to the table `damaged_row` of its database, so that the other rows stay usable.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import msgpack
import msgspec
import structlog

from bus.metrics import Counters
from schemas.errors import DECODE_ERRORS

log = structlog.get_logger()

T = TypeVar("T")
Report = Callable[[str, str], Awaitable[None]]

MIGRATIONS = (
    """
    CREATE TABLE damaged_row (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        content BLOB NOT NULL
    )
    """,
)

_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}")
_KEPT_ROWS = 256
_KEPT_CONTENT_BYTES = 1_000_000  # of one row; a longer one is cut, so the table stays below 256 MB


class RecordingConnection(sqlite3.Connection):
    """A connection that remembers which rows `set_aside` moved since the last commit, and how it commits."""

    damaged: list[str]
    synced: bool

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # passed on unchanged
        self.damaged = []
        self.synced = True


def set_aside(connection: sqlite3.Connection, table: str, row: int, reason: str) -> None:
    """Move one row to `damaged_row`, in the caller's transaction.

    Bounded: the newest 256 rows stay, of each at most 1 MB.

    Args:
        connection: Given to the work by `Database.run`.
        table: Name of the row's table.
        row: Its rowid, which is its INTEGER PRIMARY KEY if the table has one.
        reason: What is wrong with it, for people.
    """
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    # As blobs: a damaged text may be invalid UTF-8.
    selected = ", ".join(f"CAST({name} AS BLOB)" for name in columns)
    values = connection.execute(f"SELECT {selected} FROM {table} WHERE rowid = ?", (row,)).fetchone()  # noqa: S608  # names of the code
    if values is None:
        return
    content = msgpack.packb(dict(zip(columns, values, strict=True)))[:_KEPT_CONTENT_BYTES]
    connection.execute(
        "INSERT INTO damaged_row (source, reason, at_ms, content) VALUES (?, ?, ?, ?)",
        (table, reason, time.time_ns() // 1_000_000, content),
    )
    connection.execute(
        "DELETE FROM damaged_row WHERE seq <= (SELECT max(seq) FROM damaged_row) - ?", (_KEPT_ROWS,)
    )
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608  # as above
    if isinstance(connection, RecordingConnection):
        connection.damaged.append(f"a row of {table} was set aside: {reason}")


def read_rows(connection: sqlite3.Connection, table: str, type_: type[T], rest: str = "") -> list[T]:
    """Return rows of a table, in the caller's transaction; each that is not of the type is set aside.

    Args:
        connection: Given to the work by `Database.run`.
        table: Name of the table.
        type_: A NamedTuple with some of its columns, in which msgspec checks types and bounds.
        rest: What follows the table in the query, without values.
    """
    columns = ", ".join(type_._fields)  # type: ignore[attr-defined]  # of a NamedTuple
    found = []
    for row, *values in connection.execute(f"SELECT rowid, {columns} FROM {table} {rest}").fetchall():  # noqa: S608  # names of the code
        if (one := checked(connection, table, row, values, type_)) is not None:
            found.append(one)
    return found


def checked(
    connection: sqlite3.Connection, table: str, row: int, values: Sequence[object], type_: type[T]
) -> T | None:
    """Return the values of a row as a type; None if they are not of it, after the row was set aside."""
    try:
        return msgspec.convert(values, type_)
    except DECODE_ERRORS as error:
        set_aside(connection, table, row, f"it cannot be read: {error}")
        return None


def forget(
    connection: sqlite3.Connection, ids: AbstractSet[str], names: Iterable[str], before_ms: int | None
) -> None:
    """Delete the damaged rows that may be about something, in the caller's transaction.

    Args:
        connection: Given to the work by `Database.run`.
        ids: 32 hexadecimal digits each, which such a row contains.
        names: Texts of which such a row contains one.
        before_ms: All older rows too; None for none.
    """
    texts = [name.encode() for name in names]
    columns = "seq, at_ms, CAST(content AS BLOB)"
    for seq, at_ms, stored in connection.execute(f"SELECT {columns} FROM damaged_row").fetchall():  # noqa: S608  # no text from outside
        content = stored or b""
        found = {one.decode() for one in _ID.findall(content)}
        # A row whose own time is damaged may be of any time.
        is_old = before_ms is not None and not (isinstance(at_ms, int) and at_ms >= before_ms)
        if found & ids or any(text in content for text in texts) or is_old:
            connection.execute("DELETE FROM damaged_row WHERE seq = ?", (seq,))


class DamageLog:
    """Damage found in this run: counted, logged, and reported as `degraded` until the next start.

    Args:
        counters: Damage is counted as `database.damaged`.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._last: str | None = None
        self._count = 0
        self._changed = asyncio.Event()

    def add(self, sentence: str) -> None:
        """Count and log one finding; `run` reports it.

        Args:
            sentence: What was damaged and where it is now.
        """
        self._counters.add("database.damaged")
        log.error("database.damaged", reason=sentence)
        self._last, self._count = sentence, self._count + 1
        self._changed.set()

    async def run(self, report: Report) -> None:
        """Report what is found until cancelled. Safe to cancel.

        Args:
            report: Called with the part and the reason, such as `Bus.report_degraded`.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._last is not None:
                others = f" ({self._count - 1} more findings in the log)" if self._count > 1 else ""
                await report("database", f"{self._last}{others}")
