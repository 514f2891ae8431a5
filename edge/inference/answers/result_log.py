"""Table of final results, which makes the edge idempotent by photo id.

A photo that is sent again after its result was lost gets the recorded result and is not classified again.
Bounded: the newest `kept` results.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from bus.outbox.damage import set_aside
from edge.scheduling.in_flight import PhotoKey
from schemas.codec import content_id
from schemas.errors import DECODE_ERRORS
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
    "ALTER TABLE answer ADD COLUMN picture TEXT",  # digest of the image; null in rows of earlier versions
)


def keys(connection: sqlite3.Connection) -> Iterator[PhotoKey]:
    """Yield the photos that have a recorded result, the oldest first."""
    yield from connection.execute("SELECT device, photo_id FROM answer ORDER BY seq")


def find(connection: sqlite3.Connection, keys: Sequence[PhotoKey]) -> dict[PhotoKey, Result]:
    """Return the recorded results among those of these photos; a damaged one is set aside and not found."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT seq, result FROM answer WHERE device = ? AND photo_id = ?", key
        ).fetchone()
        if row is None:
            continue
        try:
            found[key] = _decoded(row[1], key)
        except (TypeError, *DECODE_ERRORS) as error:
            # The photo is classified again: one bit must not stop the edge each time that it arrives.
            set_aside(connection, "answer", row[0], f"the answer to photo {key[1]} cannot be read: {error}")
    return found


def _decoded(stored: bytes, key: PhotoKey) -> Result:
    result = msgspec.json.decode(stored, type=Result)
    if (result.device, result.photo_id) != key:
        raise ValueError(f"it is for photo {result.photo_id} of {result.device}")
    return result


def pictures(connection: sqlite3.Connection, keys: Sequence[PhotoKey]) -> dict[PhotoKey, str]:
    """Return the digests of the images that were answered under these keys, where they are known."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT picture FROM answer WHERE device = ? AND photo_id = ? AND picture IS NOT NULL", key
        ).fetchone()
        if row is not None:
            found[key] = str(row[0])
    return found


def forget(connection: sqlite3.Connection, keys: Iterable[PhotoKey]) -> None:
    """Delete the results of photos that are to be answered again."""
    connection.executemany("DELETE FROM answer WHERE device = ? AND photo_id = ?", list(keys))


def record(
    connection: sqlite3.Connection,
    results: Sequence[Result],
    *,
    kept: int,
    images: Mapping[PhotoKey, bytes] | None = None,
) -> None:
    """Record final results and delete all but the newest.

    Args:
        connection: In a transaction.
        results: Of a photo that has one already, the recorded one stays.
        kept: How many rows stay.
        images: Encoded images by key, where they are known, to detect another picture with the same id.
    """
    images = images or {}
    connection.executemany(
        # IGNORE: the first result may have been published, and a second one must not contradict it.
        "INSERT OR IGNORE INTO answer (device, photo_id, result, picture) VALUES (?, ?, ?, ?)",
        [
            (result.device, result.photo_id, msgspec.json.encode(result), image and content_id(image))
            for result in results
            for image in [images.get((result.device, result.photo_id)) or None]
        ],
    )
    connection.execute("DELETE FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - ?", (kept,))
