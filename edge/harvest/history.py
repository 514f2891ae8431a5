"""Table of recently harvested samples, so that near-duplicates, caps and quotas survive a restart.

A row is written in the transaction that makes its sample durable. Bounded: the newest `MAX_SAMPLES` rows.
"""

import secrets
import sqlite3
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bus.outbox.damage import set_aside

MAX_SAMPLES = 20_000
_KEY_BYTES = 32
_HASHES = 1 << 64

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
    "CREATE TABLE audit_key (key BLOB NOT NULL)",
    "ALTER TABLE harvested ADD COLUMN boot TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE harvested ADD COLUMN up_s REAL NOT NULL DEFAULT 0",
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


def audit_key(connection: sqlite3.Connection) -> bytes:
    """Return the key that draws this node's audits; the first call makes it."""
    is_whole = "typeof(key) = 'blob' AND length(key) = ?"
    row = connection.execute(f"SELECT key FROM audit_key WHERE {is_whole}", (_KEY_BYTES,)).fetchone()  # noqa: S608  # no text from outside
    if row is not None:
        return bytes(row[0])
    key = secrets.token_bytes(_KEY_BYTES)
    connection.execute("INSERT INTO audit_key (key) VALUES (?)", (key,))
    return key


@cache
def boot_id() -> str:
    """Return what identifies this start of the machine, empty if that is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write(connection: sqlite3.Connection, sample: HarvestedSample, now_ms: int, boot: str = "") -> None:
    """Insert a sample and delete all rows but the newest `MAX_SAMPLES`.

    Args:
        connection: In the transaction that writes the sample to the outbox.
        sample: To insert.
        now_ms: UTC milliseconds since 1970.
        boot: Of this machine, see `boot_id`.
    """
    connection.execute(
        "INSERT INTO harvested (photo_id, device, view, label, lane, size_bytes, at_ms, boot, up_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sample.photo_id,
            sample.device,
            f"{sample.dhash:016x}",  # as text: SQLite's integers are signed and a hash has 64 bits
            sample.label,
            sample.lane,
            sample.size_bytes,
            now_ms,
            boot,
            sample.at,
        ),
    )
    # By number and not by time, because the wall clock may jump.
    connection.execute(
        "DELETE FROM harvested WHERE seq <= (SELECT max(seq) FROM harvested) - ?", (MAX_SAMPLES,)
    )


def correct(connection: sqlite3.Connection, photo_id: str, size_bytes: int) -> None:
    """Set the size of the newest sample of a photo."""
    connection.execute(
        "UPDATE harvested SET size_bytes = ? WHERE seq = (SELECT max(seq) FROM harvested WHERE photo_id = ?)",
        (size_bytes, photo_id),
    )


def refund(connection: sqlite3.Connection, photo_id: str) -> None:
    """Mark the newest sample of a photo as refunded."""
    connection.execute(
        "UPDATE harvested SET credited = 1 WHERE seq = (SELECT max(seq) FROM harvested WHERE photo_id = ?)",
        (photo_id,),
    )


def load(connection: sqlite3.Connection, now: float, now_ms: int, boot: str = "") -> list[HarvestedSample]:
    """Return the samples of earlier runs, the oldest first.

    The monotonic clock spans the runs since the machine started, also when the wall clock is set; only the
    wall clock spans starts of the machine. Rows from its future (it was set back) are dated now, so that they
    are kept longer but do expire. If it was set forward meanwhile, they look older and expire sooner. A
    damaged row is set aside.

    Args:
        connection: To the edge's database.
        now: Seconds of the monotonic clock.
        now_ms: UTC milliseconds since 1970.
        boot: Of this machine, see `boot_id`.
    """
    # Stored, not only computed: otherwise each restart would date such rows as new again.
    connection.execute("UPDATE harvested SET at_ms = ? WHERE at_ms > ?", (now_ms, now_ms))
    rows = connection.execute(
        "SELECT seq, photo_id, device, view, label, lane, size_bytes, at_ms, credited, boot, up_s"
        " FROM harvested ORDER BY seq"
    ).fetchall()
    samples, earlier_boots = [], []
    for seq, *columns, row_boot, up_s in rows:
        try:
            sample = _sample(*columns, now=now, now_ms=now_ms)
            if boot and row_boot == boot and isinstance(up_s, float) and up_s <= now:
                sample = replace(sample, at=up_s)
            else:
                earlier_boots.append((boot, sample.at, seq))
            samples.append(sample)
        except (ValueError, TypeError) as error:
            # A sample less in the history: it may be harvested again, and the cloud recognises it.
            set_aside(connection, "harvested", seq, f"a harvested sample cannot be read: {error}")
    # Dated by the wall clock once per start of the machine: it may jump before the next start of the edge.
    connection.executemany("UPDATE harvested SET boot = ?, up_s = ? WHERE seq = ?", earlier_boots)
    return samples


def _sample(*columns: object, now: float, now_ms: int) -> HarvestedSample:
    """Return the sample of a row.

    Raises:
        ValueError: The hash is not a hexadecimal number of 64 bits, or a column is damaged otherwise.
        TypeError: A column has another type.
    """
    photo_id, device, view, label, lane, size_bytes, at_ms, refunded = columns
    if not all(isinstance(text, str) for text in (photo_id, device, view, label, lane)):
        raise TypeError("a column is not text")
    if not (isinstance(size_bytes, int) and isinstance(at_ms, int)) or size_bytes < 0:
        raise TypeError("a column is not a number")
    dhash = int(str(view), 16)
    if not 0 <= dhash < _HASHES:
        raise ValueError(f"{view} is not a hash of 64 bits")
    return HarvestedSample(
        str(photo_id),
        str(device),
        dhash,
        str(label),
        str(lane),
        size_bytes,
        now - (now_ms - at_ms) / 1000,
        bool(refunded),
    )
