"""Rule of all SQLite tables: a damaged value costs its own row, and every other row is read (0031)."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from bus.outbox import damage, rows
from bus.outbox.damage import RecordingConnection
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import _tolerant_text, migrate
from cloud.dataset import photo_caches
from cloud.training import embeddings, photo_check
from console.access import account_changes, audit_trail, sessions
from console.access.account_changes import Seen
from console.pages import audit
from console.review import label_sender
from edge import forgetting
from edge.harvest import history
from edge.harvest.shrinking import unshrunk
from edge.inference import attempts
from edge.inference.answers import result_log
from schemas.codec import encode
from schemas.messages import Feedback, Forget, Result
from schemas.topics import FEEDBACK

ONE, TWO = "1" * 32, "2" * 32
TOPIC = "gleaner/v1/photo/n/d"
VECTOR = np.arange(3, dtype=np.float32)
NOT_UTF8 = "CAST(X'FF80' AS TEXT)"
VALUES = ("NULL", "'text'", NOT_UTF8, "X'C0'", "X''", "''", "9223372036854775807", "-1", "1e300", "'[[[[['")


def _connection() -> RecordingConnection:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=RecordingConnection)
    connection.text_factory = _tolerant_text  # as `Database` does
    migrations = {
        "damage": damage.MIGRATIONS,
        "outbox": Outbox.MIGRATIONS,
        "answer": result_log.MIGRATIONS,
        "attempt": attempts.MIGRATIONS,
        "harvested": history.MIGRATIONS,
        "unshrunk": unshrunk.MIGRATIONS,
        "forgotten": forgetting.MIGRATIONS,
        "held": label_sender.HELD_MIGRATIONS,
        "audit": audit_trail.AuditTrail.MIGRATIONS,
        "session": sessions.Sessions.MIGRATIONS,
        "account": account_changes.MIGRATIONS,
    }
    migrate(connection, migrations)
    for statement in photo_caches.TABLES.values():
        connection.execute(statement)
    return connection


class Direct:
    """A Database of one thread."""

    def __init__(self, connection: RecordingConnection) -> None:
        self.connection = connection

    async def run(self, work: Callable[[sqlite3.Connection], Any], **_: object) -> Any:
        return work(self.connection)


def _result(photo_id: str) -> bytes:
    made = Result(photo_id=photo_id, node="n", device="d", status="rejected", answered_at_ms=5)
    return msgspec.json.encode(made)


def _feedback(photo_id: str) -> bytes:
    return encode(FEEDBACK, Feedback(photo_id=photo_id, node="n", device="d", label="cat", at_ms=1))


def _read_outbox(connection: RecordingConnection) -> list[str]:
    ids = [row.message_id for row in rows.load(connection)[0]]
    return [one for one in ids if isinstance(rows.read_payload(connection, one, None), bytes)]


def _read_answers(connection: RecordingConnection) -> list[str]:
    assert all(isinstance(hash(key), int) for key in result_log.keys(connection))
    keys = [("d", ONE), ("d", TWO)]
    assert set(result_log.pictures(connection, keys)) <= set(keys)
    return [photo_id for _, photo_id in result_log.find(connection, keys)]


def _read_attempts(connection: RecordingConnection) -> list[str]:
    assert all(isinstance(hash(key), int) for key in attempts.keys(connection))
    attempts.devices_since(connection, 0)
    found = attempts.find(connection, [("d", ONE), ("d", TWO)])
    assert all(count in range(attempts.MAX_ATTEMPTS + 1) for count in found.values())
    return [photo_id for _, photo_id in found]


def _read_harvested(connection: RecordingConnection) -> list[str]:
    return [one.photo_id for one in history.load(connection, 10.0, 10_000)]


def _read_key(connection: RecordingConnection) -> list[str]:
    assert len(history.audit_key(connection)) == 32
    return [TWO]


def _read_unshrunk(connection: RecordingConnection) -> list[str]:
    return [payload.decode() for _, payload in unshrunk.left(connection)]


def _read_forgotten(connection: RecordingConnection) -> list[str]:
    assert all(0 <= before_ms <= 2**53 for before_ms in forgetting._times(connection).values())
    order = Forget(node="n", order_id=ONE, devices={"e": 3}, at_ms=1)
    return list(forgetting._raise_times(connection, order))


def _read_damaged(connection: RecordingConnection) -> list[str]:
    """The rows that a reader set aside, read by an order to forget one of their photos."""
    damage.forget(connection, {"3" * 32}, ["e"], 1)
    left = connection.execute("SELECT CAST(content AS BLOB) FROM damaged_row").fetchall()
    return [content.decode() for (content,) in left if content and content.isascii()]


def _read_held(connection: RecordingConnection) -> list[str]:
    held, _ = label_sender._read(connection)
    return [one.photo_id for one in held.values()]


def _read_audit(connection: RecordingConnection) -> list[str]:
    trail = audit_trail.AuditTrail(Direct(connection))  # type: ignore[arg-type]
    found = asyncio.run(trail.find(limit=9, before=None))
    asyncio.run(trail.find(limit=9, person="a", about="x"))
    return [str(photo) for entry in found for photo in audit._shown(entry).photos]


def _read_sessions(connection: RecordingConnection) -> list[str]:
    held = sessions.Sessions(Direct(connection), 1e12)  # type: ignore[arg-type]
    asyncio.run(held.load())
    for cookie in (ONE, TWO):
        asyncio.run(held.find(cookie))
    return [one.person.name for one in held._sessions.values()]


def _read_accounts(connection: RecordingConnection) -> list[str]:
    now = {ONE: Seen("viewer", "f"), TWO: Seen("viewer", "f")}
    account_changes._record(connection, now)
    (changed,) = connection.execute("SELECT count(*) FROM audit WHERE facts LIKE ?", (f"%{TWO}%",)).fetchone()
    return [] if changed else [TWO]


def _read_embeddings(connection: RecordingConnection) -> list[str]:
    return [key.hex() for key in embeddings._read(connection, [bytes.fromhex(ONE), bytes.fromhex(TWO)], 3)]


def _read_checks(connection: RecordingConnection) -> list[str]:
    return list(photo_check._read(connection, [ONE, TWO]))


class Case(NamedTuple):
    """A table with two rows, of which the first is damaged."""

    table: str
    columns: str
    row: Callable[[str], Sequence[object]]
    read: Callable[[RecordingConnection], list[str]]
    key: str = "photo_id"


def _audit(photo_id: str) -> tuple[object, ...]:
    return int(photo_id[0]), 1, "anna", "127.0.0.1", "label.given", json.dumps({"photo": photo_id})


def _outbox_row(photo_id: str) -> tuple[object, ...]:
    with closing(_connection()) as scratch:
        rows.insert(scratch, photo_id, TOPIC, photo_id.encode(), 1)
        found: tuple[object, ...] = scratch.execute(
            "SELECT id, topic, payload, created_ms, checksum FROM outbox"
        ).fetchone()
    return found


def _key_row(photo_id: str) -> tuple[object, ...]:
    return (photo_id.encode(),)


CASES = (
    Case("outbox", "id, topic, payload, created_ms, checksum", _outbox_row, _read_outbox, "id"),
    Case(
        "answer",
        "device, photo_id, result, picture",
        lambda one: ("d", one, _result(one), "x"),
        _read_answers,
    ),
    Case("attempt", "device, photo_id, count, at_ms", lambda one: ("d", one, 1, 1), _read_attempts),
    Case(
        "harvested",
        "photo_id, device, view, label, lane, size_bytes, credited, at_ms, boot, up_s",
        lambda one: (one, "d", "0" * 16, "cat", "auto", 5, 0, 1, "", 1.0),
        _read_harvested,
    ),
    Case("audit_key", "key", _key_row, _read_key, "key"),
    Case("forgotten_before", "device, before_ms", lambda one: (one, 5), _read_forgotten, "device"),
    Case(
        "damaged_row",
        "source, reason, at_ms, content",
        lambda one: ("t", "r", 5, one.encode()),
        _read_damaged,
        "content",
    ),
    Case("held_label", "id, payload, due_ms", lambda one: (one, _feedback(one), 1), _read_held, "id"),
    Case("audit", "seq, at_ms, person, client, action, facts", _audit, _read_audit, "facts"),
    Case(
        "session",
        "key, name, role, csrf, used_at, proof",
        lambda one: (sessions._key(one), one, "viewer", "c", 1.0, "p"),
        _read_sessions,
        "name",
    ),
    Case("seen_account", "name, role, fingerprint", lambda one: (one, "viewer", "f"), _read_accounts, "name"),
    Case(
        "embedding",
        "photo, vector",
        lambda one: (bytes.fromhex(one), VECTOR.tobytes()),
        _read_embeddings,
        "photo",
    ),
    Case(
        "photo",
        "photo, reason, dhash, thumbnail",
        lambda one: (bytes.fromhex(one), None, "0" * 16, bytes(256)),
        _read_checks,
        "photo",
    ),
)


def _damaged(case: Case) -> Iterator[tuple[str, str, RecordingConnection]]:
    """Yield a database for each column and each wrong value that SQLite can hold there."""
    for column in case.columns.split(", "):
        for value in VALUES:
            with closing(_connection()) as connection:
                marks = ", ".join("?" * len(case.columns.split(", ")))
                for photo_id in (ONE, TWO):
                    insert = f"INSERT INTO {case.table} ({case.columns}) VALUES ({marks})"
                    connection.execute(insert, tuple(case.row(photo_id)))
                wanted = f"{case.key} = (SELECT {case.key} FROM {case.table} ORDER BY {case.key} LIMIT 1)"
                try:
                    connection.execute(f"UPDATE {case.table} SET {column} = {value} WHERE {wanted}")
                except sqlite3.IntegrityError:  # a value that the column cannot hold, such as NULL
                    continue
                yield column, value, connection


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.table)
def test_g1_a_damaged_row_is_no_obstacle_to_the_others(case: Case) -> None:
    """Any column with text, no UTF-8, another type, nothing, huge or negative numbers: the other is read."""
    tried = 0
    for column, value, connection in _damaged(case):
        try:
            found = case.read(connection)
        except Exception as error:
            raise AssertionError(f"{column} = {value}: {error!r}") from error
        assert TWO in found, f"{column} = {value}: {found}"
        tried += 1
    assert tried >= len(VALUES) - 2
