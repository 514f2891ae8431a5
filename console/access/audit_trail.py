"""Who did what and when: a table that only grows, up to a bound, and an event in the log for each entry."""

import sqlite3
from typing import NamedTuple

import msgspec
import structlog
from starlette.requests import Request

from bus.mqtt.presence import now_ms
from bus.outbox.sqlite import Database
from console.access.roles import visitor

log = structlog.get_logger()

MAX_ENTRIES = 100_000
"""Most entries; beyond, the oldest are removed."""


class Entry(NamedTuple):
    """One action of a user.

    Args:
        at_ms: When, milliseconds since 1970.
        person: Who.
        client: Address that the request came from.
        action: What, such as `label.given`.
        facts: Details as JSON.
    """

    at_ms: int
    person: str
    client: str
    action: str
    facts: str

    @classmethod
    def made(cls, at_ms: int, person: str, client: str, action: str, facts: dict[str, object]) -> "Entry":
        """Return an entry, and write it to the log."""
        log.info("console.acted", person=person, client=client, action=action, facts=facts)
        return cls(at_ms, person, client, action, msgspec.json.encode(facts).decode())


class AuditTrail:
    """The audit trail.

    Args:
        database: Opened with `MIGRATIONS` among its migrations.
    """

    MIGRATIONS = (
        """
        CREATE TABLE audit (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at_ms INTEGER NOT NULL,
            person TEXT NOT NULL,
            client TEXT NOT NULL,
            action TEXT NOT NULL,
            facts TEXT NOT NULL
        )
        """,
    )

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, request: Request, action: str, **facts: object) -> None:
        """Record what the person behind a request did; it is on the disk when this returns.

        Raises:
            StorageError: The disk failed: what was to be recorded must not be done.
        """
        await self.record_as(visitor(request).name, client_of(request), action, **facts)

    async def record_as(self, person: str, client: str, action: str, **facts: object) -> None:
        """Record an action of a user; otherwise like `record`."""
        entry = Entry.made(now_ms(), person, client, action, facts)
        await self._database.run(lambda connection: write(connection, entry))

    async def newest(self, limit: int) -> list[Entry]:
        """Return the newest entries, newest first."""
        rows = await self._database.run(
            lambda connection: connection.execute(
                "SELECT at_ms, person, client, action, facts FROM audit ORDER BY seq DESC LIMIT ?", (limit,)
            ).fetchall()
        )
        return [Entry(*row) for row in rows]


def write(connection: sqlite3.Connection, entry: Entry) -> None:
    """Insert an entry in the caller's transaction, and remove what is beyond the bound."""
    cursor = connection.execute(
        "INSERT INTO audit (at_ms, person, client, action, facts) VALUES (?, ?, ?, ?, ?)", entry
    )
    connection.execute("DELETE FROM audit WHERE seq <= ?", ((cursor.lastrowid or 0) - MAX_ENTRIES,))


def client_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return "" if request.client is None else request.client.host
