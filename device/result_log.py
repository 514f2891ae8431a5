"""The results on the device: each photo's final result, recorded exactly once."""

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


def record(connection: sqlite3.Connection, result: Result, *, keep: int) -> None:
    """Insert a final result and delete all but the newest `keep`.

    Call it in the transaction that removes the photo from the outbox: then a crash can neither lose a result
    nor record one twice.
    """
    connection.execute(
        # IGNORE: a row with this id, after a repair or a flipped bit, must not keep the photo in the outbox.
        "INSERT OR IGNORE INTO answer (photo_id, result) VALUES (?, ?)",
        (result.photo_id, msgspec.json.encode(result)),
    )
    # By distance from the newest number instead of count(*): this needs no scan of the table.
    connection.execute("DELETE FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - ?", (keep,))
