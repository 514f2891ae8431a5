"""Who did what and when: a table that only grows, up to a bound, and an event in the log for each entry."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from starlette.requests import Request

from bus.mqtt.presence import now_ms
from bus.outbox.damage import checked, set_aside
from bus.outbox.sqlite import Database
from console.access.roles import visitor
from console.web.languages import N_
from schemas.errors import DECODE_ERRORS
from schemas.field_types import Milliseconds

log = structlog.get_logger()

MAX_ENTRIES = 100_000
"""Most entries; beyond, the oldest are removed."""
ACTIONS: Mapping[str, str] = {
    "account.added": N_("account added"),
    "account.password_changed": N_("password changed"),
    "account.removed": N_("account removed"),
    "account.role_changed": N_("role changed"),
    "label.corrected": N_("label corrected"),
    "label.given": N_("label given"),
    "label.taken_back": N_("label taken back"),
    "login.failed": N_("log-in failed"),
    "login.succeeded": N_("logged in"),
    "logout": N_("logged out"),
    "photo.forgotten": N_("photo taken out for good"),
    "policy.set": N_("policy set"),
    "rollout.ordered": N_("order to a rollout"),
    "sample.discarded": N_("sample discarded"),
}
"""What is recorded, in words."""
_COLUMNS = "at_ms, person, client, action, facts"


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


class Recorded(NamedTuple):
    """An entry with its number, which grows; its other fields are those of `Entry`."""

    seq: int
    at_ms: Milliseconds
    person: str
    client: str
    action: str
    facts: str

    @property
    def details(self) -> dict[str, object]:
        """The facts.

        Raises:
            ValueError, RecursionError: They are damaged; `AuditTrail.find` returns no such entry.
        """
        return msgspec.json.decode(self.facts, type=dict[str, object])


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

    async def find(
        self, *, limit: int, action: str = "", person: str = "", about: str = "", before: int | None = None
    ) -> list[Recorded]:
        """Return entries, newest first.

        Args:
            limit: Most entries.
            action: Only these; empty for all.
            person: A part of the name, in any case.
            about: A part of the details, in any case.
            before: Only entries with a smaller number; a page begins where the one before it ended.
        """
        conditions = ["seq < ?"]
        values: list[int | str] = [2**63 - 1 if before is None else before]
        if action:
            conditions.append("action = ?")
            values.append(action)
        # Not LIKE, in which % and _ of a name would stand for others; lower() knows ASCII alone.
        for column, part in (("person", person), ("facts", _as_json(about))):
            if part.strip():
                conditions.append(f"instr(lower({column}), lower(?))")
                values.append(part.strip())
        query = (
            f"SELECT seq, {_COLUMNS} FROM audit WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - no text from outside
        )
        return await self._database.run(lambda connection: _read(connection, query, (*values, limit)))

    async def newest(self, limit: int) -> list[Entry]:
        """Return the newest entries, newest first."""
        return [Entry(*one[1:]) for one in await self.find(limit=limit)]


def _read(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[Recorded]:
    """Return the entries of a query; damaged ones are set aside."""
    found = []
    for row in connection.execute(query, values).fetchall():
        if (entry := checked(connection, "audit", row[0], row, Recorded)) is not None:
            try:
                _ = entry.details
            except DECODE_ERRORS as error:
                set_aside(connection, "audit", entry.seq, f"its facts cannot be read: {error}")
            else:
                found.append(entry)
    return found


def _as_json(text: str) -> str:
    """Return a text as the details contain it, with quotes and backslashes escaped."""
    return msgspec.json.encode(text.strip()).decode()[1:-1]


def write(connection: sqlite3.Connection, entry: Entry) -> None:
    """Insert an entry in the caller's transaction, and remove what is beyond the bound."""
    cursor = connection.execute(
        "INSERT INTO audit (at_ms, person, client, action, facts) VALUES (?, ?, ?, ?, ?)", entry
    )
    connection.execute("DELETE FROM audit WHERE seq <= ?", ((cursor.lastrowid or 0) - MAX_ENTRIES,))


def client_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return "" if request.client is None else request.client.host
