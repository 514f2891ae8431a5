"""Table of recently harvested samples, so that near-duplicates, caps and quotas survive a restart.

A row is written in the transaction that makes its sample durable. Bounded: the newest `MAX_SAMPLES` rows.
"""

import sqlite3
from dataclasses import dataclass

MAX_SAMPLES = 20_000

# Names in a migration never change: databases of earlier versions have them. AUTOINCREMENT never reuses a
# number, which the deletion of the oldest rows relies on.
MIGRATIONS = (
    """
    CREATE TABLE harvested (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        photo_id TEXT NOT NULL,
        device TEXT NOT NULL,
        view TEXT NOT NULL,
        label TEXT NOT NULL,
        lane TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        credited INTEGER NOT NULL DEFAULT 0,
        at_ms INTEGER NOT NULL
    )
    """,
    "CREATE INDEX harvested_photo ON harvested (photo_id)",
)


@dataclass(frozen=True, slots=True, eq=False)
class HarvestedSample:
    """What the harvest rules need to know about a sample.

    Args:
        photo_id: Of the photo.
        device: That sent the photo.
        dhash: Difference hash of the photo.
        label: Predicted by the model.
        lane: That it was harvested in.
        size_bytes: Of its image.
        at: When it was harvested, seconds of the monotonic clock.
        refunded: Whether it no longer counts against caps and quotas.
    """

    photo_id: str
    device: str
    dhash: int
    label: str
    lane: str
    size_bytes: int
    at: float
    refunded: bool = False


def write(connection: sqlite3.Connection, sample: HarvestedSample, now_ms: int) -> None:
    """Insert a sample and delete all rows but the newest `MAX_SAMPLES`.

    Args:
        connection: In the transaction that writes the sample to the outbox.
        sample: To insert.
        now_ms: UTC milliseconds since 1970.
    """
    connection.execute(
        "INSERT INTO harvested (photo_id, device, view, label, lane, size_bytes, at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            sample.photo_id,
            sample.device,
            f"{sample.dhash:016x}",  # as text: SQLite's integers are signed and a hash has 64 bits
            sample.label,
            sample.lane,
            sample.size_bytes,
            now_ms,
        ),
    )
    # By number and not by time, because the wall clock may jump.
    connection.execute(
        "DELETE FROM harvested WHERE seq <= (SELECT max(seq) FROM harvested) - ?", (MAX_SAMPLES,)
    )


def refund(connection: sqlite3.Connection, photo_id: str) -> None:
    """Mark the newest sample of a photo as refunded."""
    connection.execute(
        "UPDATE harvested SET credited = 1 WHERE seq = (SELECT max(seq) FROM harvested WHERE photo_id = ?)",
        (photo_id,),
    )


def load(connection: sqlite3.Connection, now: float, now_ms: int) -> list[HarvestedSample]:
    """Return the samples of earlier runs, the oldest first.

    Only the wall clock spans runs. Rows from the future (the clock was set back) are dated now, so they are
    kept longer, but not for ever. After the clock was set forward, samples look older and expire sooner.

    Args:
        connection: To the edge's database.
        now: Seconds of the monotonic clock.
        now_ms: UTC milliseconds since 1970.
    """
    # Stored, not only computed: otherwise each restart would date such rows as new again.
    connection.execute("UPDATE harvested SET at_ms = ? WHERE at_ms > ?", (now_ms, now_ms))
    rows = connection.execute(
        "SELECT photo_id, device, view, label, lane, size_bytes, at_ms, credited FROM harvested ORDER BY seq"
    )
    return [
        HarvestedSample(
            photo_id,
            device,
            int(dhash, 16),
            label,
            lane,
            size_bytes,
            now - (now_ms - at_ms) / 1000,
            bool(refunded),
        )
        for photo_id, device, dhash, label, lane, size_bytes, at_ms, refunded in rows
    ]
