"""Rows of an outbox, each with a checksum: a bit that flips on the disk costs one message."""

import sqlite3
import zlib
from collections.abc import Callable
from typing import NamedTuple

from bus.outbox.damage import set_aside
from schemas.codec import content_id
from schemas.errors import CodecError

ReadId = Callable[[str, bytes], str]
"""Returns the id in a payload, given its topic too; raises CodecError."""

_CRC_DIGITS = 8


class Row(NamedTuple):
    """A stored message without its payload."""

    message_id: str
    topic: str
    size_bytes: int
    created_ms: int


class Damaged(NamedTuple):
    """Why a row cannot be sent."""

    reason: str


def insert(
    connection: sqlite3.Connection, message_id: str, topic: str, payload: bytes, created_ms: int
) -> None:
    """Insert a message with its checksum, in the caller's transaction."""
    checksum = _head_checksum(message_id, topic) + content_id(payload)
    connection.execute(
        "INSERT INTO outbox (id, topic, payload, created_ms, checksum) VALUES (?, ?, ?, ?, ?)",
        (message_id, topic, payload, created_ms, checksum),
    )


def replace(connection: sqlite3.Connection, message_id: str, topic: str, payload: bytes) -> None:
    """Replace the payload of a message that was not sent yet."""
    checksum = _head_checksum(message_id, topic) + content_id(payload)
    connection.execute(
        "UPDATE outbox SET payload = ?, checksum = ? WHERE id = ?", (payload, checksum, message_id)
    )


def load(connection: sqlite3.Connection) -> tuple[list[Row], int]:
    """Return the rows without their payloads, in order, and how many were damaged and set aside."""
    # Not the payloads: they may be a gigabyte. Each is checked when it is sent.
    heads = connection.execute(
        "SELECT seq, id, topic, length(payload), created_ms, checksum FROM outbox ORDER BY seq"
    ).fetchall()
    rows, damaged = [], 0
    for seq, *head, checksum in heads:
        if (reason := _head_damage(head, checksum)) is None:
            rows.append(Row(*head))
        else:
            set_aside(connection, "outbox", seq, reason)
            damaged += 1
    return rows, damaged


def read_payload(
    connection: sqlite3.Connection, message_id: str, read_id: ReadId | None
) -> bytes | Damaged | None:
    """Return the payload of a message; sets its row aside if it is damaged.

    Args:
        connection: In a transaction.
        message_id: Its id.
        read_id: For a row without a checksum.

    Returns:
        The payload, why its row was set aside, or None without a row.
    """
    found = connection.execute(
        "SELECT seq, topic, payload, checksum FROM outbox WHERE id = ?", (message_id,)
    ).fetchone()
    if found is None:
        return None
    seq, topic, payload, checksum = found
    if (reason := _payload_damage(message_id, topic, payload, checksum, read_id)) is None:
        return bytes(payload)
    set_aside(connection, "outbox", seq, reason)
    return Damaged(reason)


def delete(connection: sqlite3.Connection, message_id: str) -> bool:
    """Delete a message; return whether there was one."""
    return bool(connection.execute("DELETE FROM outbox WHERE id = ?", (message_id,)).rowcount)


def remove(connection: sqlite3.Connection, message_id: str, reason: str) -> None:
    """Set a message aside that can never be sent."""
    for (seq,) in connection.execute("SELECT seq FROM outbox WHERE id = ?", (message_id,)).fetchall():
        set_aside(connection, "outbox", seq, reason)


def _head_damage(head: list[object], checksum: object) -> str | None:
    """Return why a row without its payload is damaged, None if it is not."""
    match head:
        case [str(message_id), str(topic), int(), int()]:
            if checksum is None:  # of a version that stored none
                return None
            if not isinstance(checksum, str):
                return "its checksum is not text"
            if checksum[:_CRC_DIGITS] != _head_checksum(message_id, topic):
                return "id and topic do not have the stored checksum"
            return None
        case _:
            return "a column has another type"


def _payload_damage(
    message_id: str, topic: str, payload: object, checksum: object, read_id: ReadId | None
) -> str | None:
    if not isinstance(payload, bytes):
        return "its payload is not bytes"
    if checksum is not None:
        if not isinstance(checksum, str):
            return "its checksum is not text"
        intact = checksum[_CRC_DIGITS:] == content_id(payload)
        return None if intact else "its payload does not have the stored checksum"
    try:
        inside = message_id if read_id is None else read_id(topic, payload)
    except CodecError as error:
        return f"its payload cannot be read: {error}"
    return None if inside == message_id else f"its payload has the id {inside}, its row {message_id}"


def _head_checksum(message_id: str, topic: str) -> str:
    # Not the time: a wrong one only makes the message look older or newer.
    head = f"{message_id}\n{topic}"
    return f"{zlib.crc32(head.encode(errors='replace')):08x}"
