"""Record changes of the accounts in the audit trail.

A command makes them, or an editor, also while no console runs. So the console remembers the accounts that it
has seen, without their passwords, and compares.
"""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import structlog

from bus.mqtt.presence import now_ms
from bus.outbox.damage import read_rows
from bus.outbox.sqlite import Database
from console.access import audit_trail
from console.access.accounts import Accounts
from console.access.audit_trail import Entry
from schemas.errors import PermanentError, TransientError

log = structlog.get_logger()

MIGRATIONS = (
    """
    CREATE TABLE seen_account (name TEXT PRIMARY KEY, role TEXT NOT NULL, fingerprint TEXT NOT NULL)
    """,
)
_LOOK_S = 5.0


class _ChangeRow(NamedTuple):
    name: str
    role: str
    fingerprint: str


class Seen(NamedTuple):
    """An account as it was last seen."""

    role: str
    fingerprint: str


async def record_account_changes(accounts: Accounts, database: Database) -> None:
    """Record each change of the file within seconds, until cancelled. Safe to cancel.

    Args:
        accounts: The file.
        database: Opened with `MIGRATIONS` and those of the audit trail.
    """
    while True:
        try:
            now = {
                name: Seen(one.role, one.fingerprint)
                for name, one in (await asyncio.to_thread(accounts.all)).items()
            }
        except PermanentError as error:
            log.debug("accounts.unreadable", error=str(error))  # people who log in see the reason
        else:
            try:
                await database.run(partial(_record, now=now))
            except TransientError as error:  # the next look finds the same change
                log.debug("accounts.unrecorded", error=str(error))
        await asyncio.sleep(_LOOK_S)


def changes(before: Mapping[str, Seen], now: Mapping[str, Seen]) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield action and facts of each difference, by name."""
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if new is None:
            yield "account.removed", {"account": name}
        elif old is None:
            yield "account.added", {"account": name, "role": new.role}
        elif old.role != new.role:
            yield "account.role_changed", {"account": name, "role": new.role}
        elif old != new:
            yield "account.password_changed", {"account": name}


def _record(connection: sqlite3.Connection, now: Mapping[str, Seen]) -> None:
    rows = read_rows(connection, "seen_account", _ChangeRow)
    found = list(changes({one.name: Seen(one.role, one.fingerprint) for one in rows}, now))
    if not found:
        return
    for action, facts in found:
        audit_trail.write(connection, Entry.made(now_ms(), "", "", action, facts))
    connection.execute("DELETE FROM seen_account")
    connection.executemany(
        "INSERT INTO seen_account VALUES (?, ?, ?)", [(name, *one) for name, one in now.items()]
    )
