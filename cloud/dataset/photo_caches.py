"""Remove pictures from the caches of trainings, which are SQLite files keyed by content id."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

_TABLES = ("embedding", "photo")


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
        with closing(sqlite3.connect(path, timeout=30.0)) as cache:
            cache.execute("PRAGMA secure_delete = ON")
            names = {name for (name,) in cache.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            with cache:
                for table in names.intersection(_TABLES):
                    cache.executemany(f"DELETE FROM {table} WHERE photo = ?", keys)  # noqa: S608  # one of ours
