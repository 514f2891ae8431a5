"""Table of final results, which makes the edge idempotent by photo id.

A photo that is sent again after its result was lost gets the recorded result and is not classified again.
Bounded: the newest `kept` results.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from schemas.messages import Result

MIGRATIONS = (
    """
    CREATE TABLE answer (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        photo_id TEXT NOT NULL,
        result BLOB NOT NULL,
        UNIQUE (device, photo_id)
    )
    """,
)

PhotoKey = tuple[str, str]
"""Device and photo id: two devices may send the same bytes, and one must not get the other's result."""


def find(connection: sqlite3.Connection, keys: Sequence[PhotoKey]) -> dict[PhotoKey, Result]:
    """Return the recorded results among those of these photos."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT result FROM answer WHERE device = ? AND photo_id = ?", key
        ).fetchone()
        if row is not None:
            found[key] = msgspec.json.decode(row[0], type=Result)
    return found


def record(connection: sqlite3.Connection, results: Sequence[Result], *, kept: int) -> None:
    """Record final results and delete all but the newest.

    Args:
        connection: In a transaction.
        results: Of a photo that has one already, the recorded one stays.
        kept: How many rows stay.
    """
    connection.executemany(
        # IGNORE: the first result may have been published, and a second one must not contradict it.
        "INSERT OR IGNORE INTO answer (device, photo_id, result) VALUES (?, ?, ?)",
        [(result.device, result.photo_id, msgspec.json.encode(result)) for result in results],
    )
    connection.execute("DELETE FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - ?", (kept,))
