"""What keeps parts of the edge from working: retried until it passes, and said in the Status meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from bus.mqtt import Bus
from bus.retry import backoff
from schemas.errors import TransientError

log = structlog.get_logger()

T = TypeVar("T")

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 5.0
_REASON_LENGTH = 1024


class Troubles:
    """The parts that do not work now. The Status is `degraded` while there is one.

    Args:
        bus: Reports the Status.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._reasons: dict[str, str] = {}

    async def outlast(
        self,
        part: str,
        attempt: Callable[[], Awaitable[T]],
        meanwhile: Callable[[TransientError], None] = lambda _: None,
    ) -> T:
        """Repeat an attempt until there is no TransientError. Safe to cancel.

        Args:
            part: Who tries, for log and Status.
            attempt: What is tried; it has a deadline of its own.
            meanwhile: Called after each failure.
        """
        failed_at: float | None = None
        delays = backoff(_FIRST_RETRY_S, _LAST_RETRY_S)
        while True:
            try:
                outcome = await attempt()
            except TransientError as error:
                level = log.debug if failed_at else log.warning
                level("edge.in_trouble", part=part, error=str(error))
                failed_at = failed_at or time.monotonic()
                meanwhile(error)
                await self._report(part, str(error)[:_REASON_LENGTH])
                await asyncio.sleep(next(delays))
            else:
                if failed_at is not None:
                    log.info("edge.recovered", part=part, outage_s=round(time.monotonic() - failed_at, 1))
                    await self._report(part, None)
                return outcome

    async def _report(self, part: str, reason: str | None) -> None:
        before = dict(self._reasons)
        if reason is None:
            self._reasons.pop(part, None)
        else:
            self._reasons[part] = reason
        if self._reasons == before:
            return
        first = next(iter(self._reasons.values()), None)
        await self._bus.report(state="degraded" if first else "online", reason=first)
