"""The answers on the device: each photo's final result, recorded exactly once.

The record is written in the transaction that takes the photo out of the outbox, so no crash can lose an
answer or record one twice. Bounded: the newest `kept` stay.
"""

import sqlite3

import msgspec

from schemas.messages import Result

MIGRATIONS = (
    """
    CREATE TABLE answer (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        photo_id TEXT NOT NULL UNIQUE,
        result BLOB NOT NULL
    )
    """,
)


def record(connection: sqlite3.Connection, result: Result, *, kept: int) -> None:
    """Record a final answer and forget those beyond the newest `kept`."""
    connection.execute(
        "INSERT INTO answer (photo_id, result) VALUES (?, ?)",
        (result.photo_id, msgspec.json.encode(result)),
    )
    connection.execute("DELETE FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - ?", (kept,))
