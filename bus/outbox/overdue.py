"""Report messages that are sent again and again without an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from bus.outbox.schedule import Entry

OVERDUE_S = 3600.0
"""How long a message may be sent without an answer before the component is degraded, in seconds."""

_CHECK_S = 30.0
_PART = "answers"


def describe(overdue: Sequence[Entry], name: str) -> str | None:
    """Return a sentence about messages that are sent without an answer, the oldest first; None without any.

    Args:
        overdue: The messages.
        name: What one of them is called: `photo` or `sample`.
    """
    if not overdue:
        return None
    first = overdue[0]
    return (
        f"{name} {first.message_id} was sent {first.send_count} times and is not answered "
        f"({len(overdue)} such in all)"
    )


class Overdue(Protocol):
    """An outbox, as far as this module needs it."""

    def overdue(self, age_s: float) -> str | None:
        """Return a sentence about the messages first sent longer ago than that; None without any."""


async def report_overdue(
    outbox: Overdue,
    degrade: Callable[[str, str], Awaitable[None]],
    recover: Callable[[str], Awaitable[None]],
) -> None:
    """Keep the component degraded while messages of its outbox are overdue, until cancelled. Safe to cancel.

    Args:
        outbox: The outbox.
        degrade: Such as `Bus.report_degraded`.
        recover: Such as `Bus.report_recovered`.
    """
    while True:
        if (reason := outbox.overdue(OVERDUE_S)) is not None:
            await degrade(_PART, reason)
        else:
            await recover(_PART)
        await asyncio.sleep(_CHECK_S)
