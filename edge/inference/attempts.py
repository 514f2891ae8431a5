"""Table of suspected photos, which outlives restarts.

It counts how often the model server or the edge ended while the photo was decoded, and no other with it; 0
for a photo that was only in a batch then. An answered photo loses its row. Bounded: the newest `MAX_ROWS`.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from bus.outbox.damage import set_aside
from edge.scheduling.in_flight import PhotoKey

MAX_ATTEMPTS = 3
"""Attempts with a photo alone that ended the model server or the edge, after which it is rejected."""
MAX_ROWS = 10_000

MIGRATIONS = (
    """
    CREATE TABLE attempt (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        photo_id TEXT NOT NULL,
        count INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        UNIQUE (device, photo_id)
    )
    """,
)


def keys(connection: sqlite3.Connection) -> Iterator[PhotoKey]:
    """Yield the suspected photos, the oldest first."""
    yield from connection.execute("SELECT device, photo_id FROM attempt ORDER BY seq")


def suspect(connection: sqlite3.Connection, keys: Iterable[PhotoKey], now_ms: int) -> None:
    """Let each of these photos be tried alone, because one of them may have ended the edge."""
    connection.executemany(
        "INSERT INTO attempt (device, photo_id, count, at_ms) VALUES (?, ?, 0, ?) ON CONFLICT DO NOTHING",
        [(*key, now_ms) for key in keys],
    )
    _drop_oldest(connection)


def add(connection: sqlite3.Connection, keys: Iterable[PhotoKey], now_ms: int) -> None:
    """Count an attempt with each of these photos that ended the model server or the edge."""
    connection.executemany(
        "INSERT INTO attempt (device, photo_id, count, at_ms) VALUES (?, ?, 1, ?)"
        " ON CONFLICT (device, photo_id) DO UPDATE SET count = count + 1, at_ms = excluded.at_ms",
        [(*key, now_ms) for key in keys],
    )
    _drop_oldest(connection)


def exhaust(connection: sqlite3.Connection, key: PhotoKey, now_ms: int) -> None:
    """Allow no further attempt with a photo."""
    connection.execute(
        "INSERT INTO attempt (device, photo_id, count, at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device, photo_id) DO UPDATE SET count = excluded.count, at_ms = excluded.at_ms",
        (*key, MAX_ATTEMPTS, now_ms),
    )


def find(connection: sqlite3.Connection, keys: Sequence[PhotoKey]) -> dict[PhotoKey, int]:
    """Return the number of counted attempts with those of these photos that are suspected."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT count, seq FROM attempt WHERE device = ? AND photo_id = ?", key
        ).fetchone()
        # A damaged number above the limit would reject a photo that never ended a process.
        if row is not None and isinstance(row[0], int) and 0 <= row[0] <= MAX_ATTEMPTS:
            found[key] = row[0]
        elif row is not None:
            set_aside(
                connection,
                "attempt",
                row[1],
                f"the attempts with photo {key[1]} are not a number from 0 to {MAX_ATTEMPTS}",
            )
    return found


def clear(connection: sqlite3.Connection, keys: Iterable[PhotoKey]) -> None:
    """Forget the attempts with photos that were answered."""
    connection.executemany("DELETE FROM attempt WHERE device = ? AND photo_id = ?", list(keys))


def devices_since(connection: sqlite3.Connection, since_ms: int) -> list[str]:
    """Return the devices with a photo that failed alone after this time, UTC milliseconds since 1970."""
    rows = connection.execute(
        "SELECT DISTINCT device FROM attempt WHERE count > 0 AND at_ms > ?", (since_ms,)
    )
    return [str(device) for (device,) in rows]


def _drop_oldest(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM attempt WHERE seq <= (SELECT max(seq) FROM attempt) - ?", (MAX_ROWS,))
