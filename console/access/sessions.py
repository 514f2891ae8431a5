"""People who are logged in: kept on the disk as hashes, so that a restart does not log anybody out."""

import asyncio
import contextlib
import hashlib
import secrets
import sqlite3
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

from bus.outbox.damage import read_rows
from bus.outbox.sqlite import Database, StorageError
from console.access.login import Identified
from console.access.roles import Role, Visitor

MAX_SESSIONS = 1024
"""Most sessions; the one that was idle for longest ends when a further person logs in."""
_WRITE_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in browser.

    Args:
        person: Who logged in.
        visitor: The same person as endpoints know them.
        csrf: Token that each change must carry.
        used_at: Time of the last request, seconds since 1970.
        written_at: `used_at` as it is on the disk.
    """

    person: Identified
    visitor: Visitor
    csrf: str
    used_at: float
    written_at: float


class _SessionRow(NamedTuple):
    key: str
    name: str
    role: Role
    proof: str
    csrf: str
    used_at: float


class Sessions:
    """The sessions of a console. Bounded, see `MAX_SESSIONS`.

    Args:
        database: Opened with `MIGRATIONS` among its migrations.
        idle_s: A session ends after this many seconds without a request.
    """

    MIGRATIONS = (
        """
        CREATE TABLE session (
            key TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            csrf TEXT NOT NULL,
            used_at REAL NOT NULL
        )
        """,
        # Sessions from before this column end: of no account.
        "ALTER TABLE session ADD COLUMN proof TEXT NOT NULL DEFAULT ''",
    )

    def __init__(self, database: Database, idle_s: float) -> None:
        self._database = database
        self._idle_s = idle_s
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    async def load(self) -> None:
        """Load the sessions of earlier runs; call once."""
        found = await self._database.run(
            lambda connection: read_rows(connection, "session", _SessionRow, "ORDER BY used_at")
        )
        now = time.time()
        for one in found[-MAX_SESSIONS:]:
            person = Identified(one.name, one.role, one.proof)
            # From the future after a clock was set back, or by a damaged bit: it ends all the same.
            self._sessions[one.key] = _session(one.key, person, one.csrf, min(one.used_at, now))

    async def begin(self, person: Identified) -> str:
        """Log a user in and return the cookie's value; only its hash is kept."""
        cookie, csrf, now = secrets.token_urlsafe(32), secrets.token_urlsafe(24), time.time()
        key = _key(cookie)
        while len(self._sessions) >= MAX_SESSIONS:
            await self._remove(next(iter(self._sessions)))
        self._sessions[key] = _session(key, person, csrf, now)
        row = (key, person.name, person.role, person.proof, csrf, now)
        await self._database.run(
            lambda connection: connection.execute(
                "INSERT INTO session (key, name, role, proof, csrf, used_at) VALUES (?, ?, ?, ?, ?, ?)", row
            )
        )
        return cookie

    async def find(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie, None without one or after its end; counts as use."""
        if cookie is None or (session := self._sessions.get(key := _key(cookie))) is None:
            return None
        now = time.time()
        if now - session.used_at > self._idle_s:
            with contextlib.suppress(StorageError):  # after a restart it has ended too
                await self._remove(key)
            return None
        session = replace(session, used_at=now)
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        if now - session.written_at > _WRITE_EVERY_S:
            self._sessions[key] = replace(session, written_at=now)
            with contextlib.suppress(StorageError):  # a full disk must not keep people from seeing that it is
                await self._database.run(
                    lambda connection: connection.execute(
                        "UPDATE session SET used_at = ? WHERE key = ?", (now, key)
                    )
                )
        return session

    async def end(self, cookie: str | None) -> None:
        """Log a browser out."""
        if cookie is not None:
            await self._remove(_key(cookie))

    async def _remove(self, key: str) -> None:
        self._sessions.pop(key, None)
        delete = asyncio.shield(self._database.run(lambda connection: _delete(connection, key)))
        await delete


def _session(key: str, person: Identified, csrf: str, used_at: float) -> Session:
    return Session(person, Visitor(person.name, person.role, key[:16]), csrf, used_at, used_at)


def _delete(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM session WHERE key = ?", (key,))


def _key(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
