"""Trying until it works: what a service does about a part that is away, and says in its Status meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bus.backoff import backoff
from bus.mqtt.client import Bus
from schemas.errors import TransientError

T = TypeVar("T")

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 5.0


async def retry_until_ok(
    bus: Bus,
    part: str,
    attempt: Callable[[], Awaitable[T]],
    meanwhile: Callable[[TransientError], None] = lambda _: None,
) -> T:
    """Repeat an attempt until there is no TransientError; the Status is degraded meanwhile. Safe to cancel.

    Args:
        bus: Reports the Status.
        part: What is away, for log and Status: `model`, `disk`, `dataset`.
        attempt: What is tried; it has a deadline of its own.
        meanwhile: Called after each failure.
    """
    delays = backoff(_FIRST_RETRY_S, _LAST_RETRY_S)
    while True:
        try:
            outcome = await attempt()
        except TransientError as error:
            meanwhile(error)
            await bus.report_degraded(part, str(error))
            await asyncio.sleep(next(delays))
        else:
            await bus.report_recovered(part)
            return outcome
