"""The caches of trainings, SQLite files keyed by content id: merge them, and remove pictures from them."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from bus.outbox.repair import is_damage, parts

T = TypeVar("T")
Read = Callable[[sqlite3.Connection], T]

log = structlog.get_logger()

_TIMEOUT_S = 30.0  # another process may be writing to it

TABLES = {
    "embedding": (
        "CREATE TABLE IF NOT EXISTS embedding (photo BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
    ),
    "photo": (
        "CREATE TABLE IF NOT EXISTS photo"
        " (photo BLOB PRIMARY KEY, reason TEXT, dhash TEXT, thumbnail BLOB) WITHOUT ROWID"
    ),
}
"""Statements that create the table of a cache, by its name: embeddings, and the results of photo checks."""


def open_cache(path: Path, table: str, read: Read[T]) -> tuple[sqlite3.Connection, T]:
    """Open a cache, which is created if missing, and read from it.

    A file that SQLite finds damaged is deleted and begun anew: everything in it can be computed again.

    Args:
        path: Of the file.
        table: One of `TABLES`.
        read: Called with the connection; texts that are not UTF-8 have replacement characters.

    Returns:
        The connection, which the caller closes, and what `read` returned.

    Raises:
        sqlite3.Error: The cache is locked, or the disk failed.
    """
    try:
        return _opened(path, table, read)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        log.warning("cache.damaged", path=str(path), error=str(error))
        for part in parts(path):
            part.unlink(missing_ok=True)
        return _opened(path, table, read)


def stored_vector(value: object) -> NDArray[np.float32] | None:
    """Return the embedding in a row, None if the row is damaged."""
    if not isinstance(value, bytes) or len(value) % np.dtype(np.float32).itemsize:
        return None
    vector = np.frombuffer(value, np.float32)
    return vector if np.isfinite(vector).all() else None


def _opened(path: Path, table: str, read: Read[T]) -> tuple[sqlite3.Connection, T]:
    cache = sqlite3.connect(path, timeout=_TIMEOUT_S)
    try:
        cache.text_factory = lambda raw: raw.decode(errors="replace")
        cache.execute(TABLES[table])
        return cache, read(cache)
    except BaseException:
        cache.close()
        raise


class CacheFile(NamedTuple):
    """What one cache has, to be merged into another folder.

    Attributes:
        path: of the file, relative to its folder of caches.
        table: one of `TABLES`.
        rows: all of its rows, the content id first.
    """

    path: str
    table: str
    rows: list[tuple[Any, ...]]


def read_caches(folder: Path) -> list[CacheFile]:
    """Read all caches below a folder into memory.

    Raises:
        sqlite3.Error: A cache is damaged or locked.
    """
    found = []
    for path in sorted(folder.rglob("*.sqlite3")):
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as cache:
            for table in _tables(cache):
                rows = cache.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608  # one of ours
                found.append(CacheFile(str(path.relative_to(folder)), table, rows))
    return found


def merge_caches(folder: Path, files: Sequence[CacheFile]) -> None:
    """Add rows to the caches below a folder, which are created if missing; rows that are there are replaced.

    Raises:
        sqlite3.Error: A cache is damaged or locked.
    """
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as cache, cache:
            cache.execute(TABLES[file.table])
            for row in file.rows[:1]:
                values = ", ".join("?" * len(row))
                cache.executemany(f"INSERT OR REPLACE INTO {file.table} VALUES ({values})", file.rows)  # noqa: S608  # one of ours


def cached_pictures(path: Path, table: str, where: str = "true") -> set[bytes]:
    """Return the content ids that a cache has; none if there is no such file.

    Args:
        path: Of the file.
        table: One of `TABLES`.
        where: Condition in SQL.

    Raises:
        sqlite3.Error: The cache is damaged or locked.
    """
    if not path.is_file():
        return set()
    with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as cache:
        if table not in _tables(cache):
            return set()
        return {key for (key,) in cache.execute(f"SELECT photo FROM {table} WHERE {where}")}  # noqa: S608  # one of ours


def purge_caches(folder: Path, content_ids: Sequence[str]) -> None:
    """Delete everything about some pictures from all caches below a folder, and overwrite it on the disk.

    Args:
        folder: May not exist.
        content_ids: Of the pictures.

    Raises:
        sqlite3.Error: A cache is damaged or locked; it can be deleted.
    """
    keys = [(bytes.fromhex(content_id),) for content_id in content_ids]
    for path in sorted(folder.rglob("*.sqlite3")):
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as cache:
            cache.execute("PRAGMA secure_delete = ON")
            with cache:
                for table in _tables(cache):
                    cache.executemany(f"DELETE FROM {table} WHERE photo = ?", keys)  # noqa: S608  # one of ours


def _tables(cache: sqlite3.Connection) -> list[str]:
    names = {name for (name,) in cache.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(names & TABLES.keys())
