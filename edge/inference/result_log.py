"""The recorded answers: what makes the edge idempotent by photo id.

A photo that comes again, because its result got lost on the way, is answered again and not processed again.
Bounded: the newest `kept` answers stay.
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

Key = tuple[str, str]
"""Device and photo id: two devices may send the same bytes, and neither learns from the other's id."""


def find(connection: sqlite3.Connection, keys: Sequence[Key]) -> dict[Key, Result]:
    """Return the answers that are recorded among these photos."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT result FROM answer WHERE device = ? AND photo_id = ?", key
        ).fetchone()
        if row is not None:
            found[key] = msgspec.json.decode(row[0], type=Result)
    return found


def record(connection: sqlite3.Connection, results: Sequence[Result], *, kept: int) -> None:
    """Record final answers; the first one for a photo stands. Forgets those beyond the newest `kept`."""
    connection.executemany(
        "INSERT OR IGNORE INTO answer (device, photo_id, result) VALUES (?, ?, ?)",
        [(result.device, result.photo_id, msgspec.json.encode(result)) for result in results],
    )
    connection.execute("DELETE FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - ?", (kept,))
