"""Table of samples in the outbox that are not shrunk yet, so that the next run shrinks them before it sends.

Bounded by the samples that wait to be shrunk.
"""

import sqlite3

from bus.outbox import rows

MAX_TRIES = 1
"""How often a start shrinks a sample that an earlier run left: shrinking it may have ended that run."""

MIGRATIONS = (
    "CREATE TABLE unshrunk (photo_id TEXT PRIMARY KEY, tries INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
)


def mark(connection: sqlite3.Connection, photo_id: str) -> None:
    """Note, in the transaction that writes a sample to the outbox, that it is not shrunk yet."""
    connection.execute("INSERT OR IGNORE INTO unshrunk (photo_id) VALUES (?)", (photo_id,))


def clear(connection: sqlite3.Connection, photo_id: str) -> None:
    """Note that a sample is as it will be sent."""
    connection.execute("DELETE FROM unshrunk WHERE photo_id = ?", (photo_id,))


def clear_all(connection: sqlite3.Connection) -> None:
    """Note that all samples are as they will be sent."""
    connection.execute("DELETE FROM unshrunk")


def left(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """Return topics and payloads of the samples to shrink, and count this as a try."""
    connection.execute("DELETE FROM unshrunk WHERE tries >= ?", (MAX_TRIES,))
    connection.execute("UPDATE unshrunk SET tries = tries + 1")
    found = connection.execute("SELECT id, topic FROM outbox WHERE id IN (SELECT photo_id FROM unshrunk)")
    payloads = [
        (str(topic), rows.read_payload(connection, photo_id, None)) for photo_id, topic in found.fetchall()
    ]
    # A damaged row was set aside, and is reported as that.
    return [(topic, payload) for topic, payload in payloads if isinstance(payload, bytes)]
