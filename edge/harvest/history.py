"""What was harvested lately, on disk: so that a restart forgets neither near-duplicates nor what was spent.

A row is written in the transaction that makes its sample durable. Bounded: the newest `KEPT` stay.
"""

import sqlite3
from dataclasses import dataclass

KEPT = 20_000

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
    """A sample as the harvest remembers it.

    Args:
        photo_id: Of the photo.
        device: Whose photo it is.
        view: Its difference hash.
        label: Of the model.
        lane: That it was harvested in.
        size_bytes: Of its image.
        at: Seconds of the monotonic clock.
        credited: Whether what it had spent was given back.
    """

    photo_id: str
    device: str
    view: int
    label: str
    lane: str
    size_bytes: int
    at: float
    refunded: bool = False


def write(connection: sqlite3.Connection, sample: HarvestedSample, now_ms: int) -> None:
    """Keep a sample, and forget those beyond the newest `KEPT`.

    Args:
        connection: In the transaction that keeps the sample itself.
        sample: Harvested just now.
        now_ms: UTC milliseconds since 1970.
    """
    connection.execute(
        "INSERT INTO harvested (photo_id, device, view, label, lane, size_bytes, at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            sample.photo_id,
            sample.device,
            f"{sample.view:016x}",
            sample.label,
            sample.lane,
            sample.size_bytes,
            now_ms,
        ),
    )
    connection.execute("DELETE FROM harvested WHERE seq <= (SELECT max(seq) FROM harvested) - ?", (KEPT,))


def refund(connection: sqlite3.Connection, photo_id: str) -> None:
    """Remember that what the newest sample of a photo had spent was given back."""
    connection.execute(
        "UPDATE harvested SET credited = 1 WHERE seq = (SELECT max(seq) FROM harvested WHERE photo_id = ?)",
        (photo_id,),
    )


def load(connection: sqlite3.Connection, now: float, now_ms: int) -> list[HarvestedSample]:
    """Return what earlier runs harvested, the oldest first.

    The times of different runs have only the wall clock in common. What it dates later than now, because it
    was set back, counts as harvested now: it is remembered for longer, but never for ever. After a clock was
    set forward, what is remembered looks older and is forgotten sooner.

    Args:
        connection: To the edge's database.
        now: Seconds of the monotonic clock.
        now_ms: UTC milliseconds since 1970.
    """
    connection.execute("UPDATE harvested SET at_ms = ? WHERE at_ms > ?", (now_ms, now_ms))
    rows = connection.execute(
        "SELECT photo_id, device, view, label, lane, size_bytes, at_ms, credited FROM harvested ORDER BY seq"
    )
    return [
        HarvestedSample(
            photo_id,
            device,
            int(view, 16),
            label,
            lane,
            size_bytes,
            now - (now_ms - at_ms) / 1000,
            bool(given),
        )
        for photo_id, device, view, label, lane, size_bytes, at_ms, given in rows
    ]
