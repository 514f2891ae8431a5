"""How a component is: degraded while a part of it fails, online again when none does."""

import time

import structlog

from bus.mqtt import Bus

log = structlog.get_logger()

_REASON_LENGTH = 1024


class Health:
    """The parts of a component that fail now, said in log and status when it begins and when it is over.

    Args:
        bus: The component's connection, whose Status it changes.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._failing: dict[str, tuple[float, str]] = {}

    async def failed(self, part: str, error: Exception) -> None:
        """Say that a part fails; what it repeats until it recovers is for the debug log alone."""
        if part in self._failing:
            log.debug("part.failed", part=part, error=str(error))
            return
        self._failing[part] = time.monotonic(), str(error)
        log.warning("part.failed", part=part, error=str(error))
        await self._report()

    async def recovered(self, part: str) -> None:
        """Say that a part works; nothing happens if it did before."""
        if part not in self._failing:
            return
        since, _ = self._failing.pop(part)
        log.info("part.recovered", part=part, outage_s=round(time.monotonic() - since, 1))
        await self._report()

    async def _report(self) -> None:
        reasons = "; ".join(reason for _, reason in self._failing.values())
        state = "degraded" if self._failing else "online"
        await self._bus.report(state=state, reason=reasons[:_REASON_LENGTH] or None)
