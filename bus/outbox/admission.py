"""What an outbox accepts: messages with room on its disk."""

import time
from dataclasses import dataclass

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.sqlite import Database
from schemas.errors import TransientError


class OutboxFullError(TransientError):
    """The outbox or its disk is full: the message was not accepted."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message that was admitted and is not yet on the disk."""

    message_id: str
    topic: str
    payload: bytes
    created_ms: int


def check_disk(
    database: Database, limits: OutboxLimits, size_bytes: int, counters: Counters, name: str
) -> None:
    """Raise if the disk is nearly full.

    Deleting an answered message needs space too, so new messages must not take the last of it.

    Raises:
        OutboxFullError: With the free and the needed bytes; counted.
    """
    free_bytes = database.free_bytes()
    if free_bytes < limits.min_free_bytes + size_bytes:
        counters.add(f"{name}.refused_disk_full")
        raise OutboxFullError(
            f"{name} outbox refused a message: {free_bytes} bytes are free on its disk, "
            f"{limits.min_free_bytes + size_bytes} are needed"
        )


def full(limits: OutboxLimits, size_bytes: int, used_bytes: int, messages: int, name: str) -> OutboxFullError:
    """Return the error for a message that finds no room."""
    return OutboxFullError(
        f"{name} outbox is full: it has no room for {size_bytes} bytes "
        f"({used_bytes} of {limits.max_bytes} bytes, {messages} of {limits.max_messages} messages)"
    )


def monotonic_time(created_ms: int, live_s: float) -> float:
    """Convert a time to this process's monotonic clock.

    A time in the future is now, or late if further away than `live_s`: the clock was set back, or has no
    battery, and the age of the message is unknown.

    Args:
        created_ms: UTC milliseconds since 1970.
        live_s: Age in seconds from which a message is late.
    """
    # The monotonic clock starts again with each boot, so the age is taken from the wall clock.
    age_s = time.time() - created_ms / 1000
    if age_s < -live_s:
        age_s = live_s + 1.0
    return time.monotonic() - max(0.0, age_s)


def unchanged(payload: bytes) -> bytes:
    """Return a late message unchanged."""
    return payload
