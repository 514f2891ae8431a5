"""Retry a dependency until it succeeds; until then report the component as degraded."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from bus.backoff import backoff
from bus.mqtt.client import Bus
from schemas.errors import TransientError

T = TypeVar("T")

_FIRST_RETRY_S = 0.2
_RETRY_CAP_S = 5.0


async def retry_until_ok(
    bus: Bus,
    part: str,
    attempt: Callable[[], Awaitable[T]],
    on_failure: Callable[[TransientError], None] = lambda _: None,
) -> T:
    """Repeat an attempt until it raises no TransientError; until then the Status is degraded. Safe to cancel.

    Args:
        bus: Publishes the Status.
        part: The dependency, for log and Status: `model`, `disk`, `dataset`.
        attempt: Called for each attempt; must have its own timeout.
        on_failure: Called after each failed attempt.
    """
    delays: Iterator[float] | None = None
    while True:
        try:
            result = await attempt()
        except TransientError as error:
            on_failure(error)
            await bus.report_degraded(part, str(error))  # logs a warning once, repeats at debug level
            delays = delays or backoff(_FIRST_RETRY_S, _RETRY_CAP_S)
            await asyncio.sleep(next(delays))
        else:
            await bus.report_recovered(part)
            return result
