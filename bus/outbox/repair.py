"""Replace a damaged SQLite file by a new one with the rows that can still be read. Blocking.

The damaged file stays next to it as `<name>.damaged-<number>`. A power cut during the repair leaves the
damaged file in place, or the finished replacement under a name from which `finish` continues.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bus.files.atomic_file import make_private, sync_file, sync_folder

_KEPT_FILES = 3
_SMALLEST_PAGE_BYTES = 512
_COMPANIONS = ("", "-wal", "-shm", "-journal")
_HIGHEST_ROW = 2**63 - 1
_MOST_FAILURES = 2000  # of queries on unreadable pages; each is one attempt to find rows behind them
# Faults of the machine or of another process: a new file would not mend them.
_ENVIRONMENT = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_AUTH,
    }
)

Schema = Callable[[sqlite3.Connection], None]
"""Creates all tables of an empty database."""


class DamagedError(sqlite3.DatabaseError):
    """Found by our own checks: what SQLite itself does not recognise as damage."""


class Repaired(NamedTuple):
    """What a repair did.

    Args:
        moved_to: Where the damaged file is now.
        rows: How many rows were copied from it.
        lost: Whether something in it could not be read.
    """

    moved_to: Path
    rows: int
    lost: bool


def is_damage(error: Exception | None) -> bool:
    """Return True for an error that comes from the content of the file, at any time."""
    code = _primary_code(error)
    return isinstance(error, DamagedError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_damage_when_opening(error: Exception) -> bool:
    """Return True for an error during the migrations that comes from the content of the file."""
    if not isinstance(error, sqlite3.Error):  # a version that is not a number
        return isinstance(error, TypeError | ValueError | OverflowError)
    return isinstance(error, DamagedError) or _primary_code(error) not in _ENVIRONMENT


def clear_the_way(path: Path) -> Path | None:
    """Move aside what cannot be a database: a folder, a device, or a file without one page.

    Returns:
        Where it is now, None if there was nothing of the kind.
    """
    finish(path)
    strange = [part for part in parts(path) if part.exists() and not part.is_file()]
    if path.is_file() and path.stat().st_size < _SMALLEST_PAGE_BYTES:
        # SQLite takes such a file for a new database and deletes its log, and with it the last rows.
        strange = list(parts(path))
    if not strange:
        return None
    return _move_aside(path, strange)


def repair(path: Path, schema: Schema) -> Repaired:
    """Move a damaged database aside and put a new one with its readable rows in its place.

    Integer primary keys get new numbers, in the order of the old ones.

    Raises:
        sqlite3.Error, OSError: The disk refused; the damaged file is still in place.
    """
    building = path.with_name(f"{path.name}.rebuilding")
    for part in parts(building):
        part.unlink(missing_ok=True)
    try:
        rows, lost = _rebuild(path, building, schema)
    except sqlite3.Error:  # for example too little space for a copy: continue without the rows
        for part in parts(building):
            part.unlink(missing_ok=True)
        rows, lost = 0, True
        with contextlib.closing(sqlite3.connect(building, isolation_level=None)) as target:
            _create(target, schema)
    make_private(building)
    sync_file(building)
    building.rename(_finished(path))
    sync_folder(path.parent)
    moved_to = finish(path)
    return Repaired(moved_to or path, rows, lost)


def finish(path: Path) -> Path | None:
    """Put a finished replacement in place; called again after a power cut in the middle.

    Returns:
        Where the damaged file is now, None if it was not replaced.
    """
    if not _finished(path).is_file():
        return None
    moved_to = _move_aside(path, [part for part in parts(path) if part.exists()])
    _finished(path).rename(path)
    sync_folder(path.parent)
    return moved_to


def _move_aside(path: Path, names: list[Path]) -> Path:
    """Rename a file and its companions, and delete the oldest ones that were moved before."""
    numbers = sorted(_moved_numbers(path))
    for number in numbers[: max(0, len(numbers) - _KEPT_FILES + 1)]:
        for part in parts(_moved(path, number)):
            if part.is_file():
                part.unlink()
    target = _moved(path, numbers[-1] + 1 if numbers else 1)
    # The database first: a log without its database is deleted by SQLite, the reverse would lose its rows.
    for part in names:
        if part.exists():
            part.rename(target.with_name(f"{target.name}{part.name.removeprefix(path.name)}"))
    sync_folder(path.parent)
    return target


def _rebuild(path: Path, building: Path, schema: Schema) -> tuple[int, bool]:
    copied, lost = 0, False
    with (
        contextlib.closing(sqlite3.connect(building, isolation_level=None)) as target,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1.0)) as source,
    ):
        target.execute("PRAGMA synchronous = OFF")  # synced as a whole at the end
        _create(target, schema)
        source.text_factory = _text
        with contextlib.suppress(sqlite3.Error):
            source.execute("PRAGMA writable_schema = ON")  # accepts a truncated file
        target.execute("BEGIN")
        for table, columns in _tables(target).items():
            for values in _readable_rows(source, table, columns):
                if values is None:
                    lost = True
                elif _insert(target, table, columns, values):
                    copied += 1
                else:
                    lost = True
        target.execute("COMMIT")
    return copied, lost


def _create(target: sqlite3.Connection, schema: Schema) -> None:
    target.execute("BEGIN")
    schema(target)
    target.execute("COMMIT")


def _tables(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the columns to copy of each table; a single integer primary key is left out."""
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        " AND name != 'schema_version'"
    ).fetchall()
    tables = {}
    for (name,) in names:
        facts = connection.execute(f"PRAGMA table_info({name})").fetchall()
        tables[name] = [column for _, column, kind, _, _, key in facts if not (key and kind == "INTEGER")]
    return tables


def _readable_rows(
    source: sqlite3.Connection, table: str, columns: list[str]
) -> Iterator[tuple[object, ...] | None]:
    """Yield the values of each row that can be read, and None for one that cannot."""
    try:
        there = {name for _, name, *_ in source.execute(f"PRAGMA table_info({table})")}
    except sqlite3.Error:
        there = set()
    if not there:
        yield None
        return
    # A column that a later migration adds keeps its default.
    selected = ", ".join(name if name in there else "NULL" for name in columns)
    query = f"SELECT {selected} FROM {table} NOT INDEXED WHERE rowid = ?"  # noqa: S608  # names of the code
    for row in _readable_ids(source, table):
        try:
            yield None if row is None else source.execute(query, (row,)).fetchone()
        except sqlite3.Error:
            yield None


def _readable_ids(source: sqlite3.Connection, table: str) -> Iterator[int | None]:
    """Yield the row ids on readable pages, in order, and None where some cannot be read."""
    query = f"SELECT rowid FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid"  # noqa: S608  # as above
    return _search(source, query, 0, _HIGHEST_ROW, iter(range(_MOST_FAILURES)))


def _search(
    source: sqlite3.Connection, query: str, low: int, high: int, failures: Iterator[int]
) -> Iterator[int | None]:
    """Yield the readable ids of a range.

    An unreadable page ends a query, so the rows behind it are reached from the other end, and those between
    two unreadable pages by halving the range.
    """
    ascending, whole = _scan(source, query, low, high)
    yield from ascending
    if whole or next(failures, None) is None:
        return
    yield None
    low = ascending[-1] + 1 if ascending else low
    descending, _ = _scan(source, f"{query} DESC", low, high)
    high = descending[-1] - 1 if descending else high
    if low < high:
        middle = (low + high) // 2
        yield from _search(source, query, low, middle, failures)
        yield from _search(source, query, middle + 1, high, failures)
    yield from reversed(descending)


def _scan(source: sqlite3.Connection, query: str, low: int, high: int) -> tuple[list[int], bool]:
    """Return the row ids that a query finds, and whether it came to its end."""
    found: list[int] = []
    try:
        for (row,) in source.execute(query, (low, high)):
            found.append(row)  # those before an error count
    except sqlite3.Error:
        return found, False
    return found, True


def _insert(target: sqlite3.Connection, table: str, columns: list[str], values: tuple[object, ...]) -> bool:
    places = ", ".join("?" * len(columns))
    try:
        # IGNORE: of two rows with one id after a flipped bit, the first stays.
        return bool(
            target.execute(
                f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({places})",  # noqa: S608  # as above
                values,
            ).rowcount
        )
    except sqlite3.Error as error:
        if _primary_code(error) in _ENVIRONMENT:
            raise
        return False


def _text(raw: bytes) -> str | bytes:
    """Return text as it was stored; as bytes if it is no longer UTF-8, for the reader to set aside."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _primary_code(error: Exception | None) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the extended code has the primary one in its lowest byte


def parts(path: Path) -> Iterator[Path]:
    """Yield the paths of a database and of its companion files, whether they exist or not."""
    return (path.with_name(f"{path.name}{suffix}") for suffix in _COMPANIONS)


def _finished(path: Path) -> Path:
    return path.with_name(f"{path.name}.rebuilt")


def _moved(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _moved_numbers(path: Path) -> set[int]:
    prefix = f"{path.name}.damaged-"
    numbers = (part.name.removeprefix(prefix).split("-")[0] for part in path.parent.glob(f"{prefix}*"))
    return {int(number) for number in numbers if number.isdecimal()}
