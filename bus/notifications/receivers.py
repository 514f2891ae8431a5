"""Send messages to the receivers in a file independently: a failing one does not delay the others."""

import asyncio
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from bus.backoff import backoff
from bus.config import ConfigError
from bus.mqtt.client import Bus
from bus.notifications.digest import Summary

if TYPE_CHECKING:
    from apprise import Apprise

Named: TypeAlias = "list[tuple[str, Apprise]]"
"""Receivers with names that contain no secrets."""

log = structlog.get_logger()

ATTEMPTS = 6
_QUEUE = 4
_SEND_S = 120.0
_FIRST_RETRY_S = 2.0
_RETRY_CAP_S = 300.0


def read_receivers(path: Path) -> Named:
    """Return each receiver of a file with a name that has no secrets: its line and its service.

    Raises:
        ConfigError: The file cannot be read or is empty, or a line is not a URL of Apprise. The error does
            not contain the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"cannot read the receivers in {path}: {reason}") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    receivers = [_receiver(path, number, url) for number, url in found if not url.startswith("#")]
    if not receivers:
        raise ConfigError(f"there are no receivers in {path}", hint="put one Apprise URL on each line")
    return receivers


def _receiver(path: Path, number: int, url: str) -> "tuple[str, Apprise]":
    import apprise  # noqa: PLC0415  # slow to import, and of this service alone

    made = apprise.Apprise()
    if not made.add(url):
        raise ConfigError(
            f"line {number} of {path} is not a URL that Apprise knows", hint="such as mailto://…"
        )
    return f"receiver {number} ({url.partition(':')[0]})", made


class Receiver:
    """Sends messages to one receiver, in their order.

    Bounded: while it fails, four messages wait; a further one replaces the oldest, which is counted as
    `notification.dropped`. A message is given up after `ATTEMPTS` attempts, about ten minutes.

    Args:
        name: For log and Status; without secrets.
        send_by: Knows the address.
        bus: Publishes the Status.
        first_retry_s: First delay between attempts, in seconds.
    """

    def __init__(
        self, name: str, send_by: "Apprise", bus: Bus, *, first_retry_s: float = _FIRST_RETRY_S
    ) -> None:
        self._name = name
        self._send_by = send_by
        self._bus = bus
        self._first_retry_s = first_retry_s
        self._waiting: asyncio.Queue[Summary] = asyncio.Queue(_QUEUE)

    def put(self, message: Summary) -> None:
        """Queue a message."""
        if self._waiting.full():
            self._waiting.get_nowait()
            self._bus.counters.add("notification.dropped")
        self._waiting.put_nowait(message)

    async def run(self) -> None:
        """Send until cancelled. Safe to cancel: what waits is lost."""
        while True:
            await self._deliver(await self._waiting.get())

    async def _deliver(self, message: Summary) -> None:
        delays: Iterator[float] = islice(backoff(self._first_retry_s, _RETRY_CAP_S), ATTEMPTS - 1)
        while not await self._attempt(message):
            await self._bus.report_degraded(self._name, f"{self._name} does not take messages")
            if (delay_s := next(delays, None)) is None:
                self._bus.counters.add("notification.failed")
                log.error("notification.failed", receiver=self._name, attempts=ATTEMPTS)
                return
            await asyncio.sleep(delay_s)
        self._bus.counters.add("notification.sent")
        log.info("notification.sent", receiver=self._name, title=message.title)
        await self._bus.report_recovered(self._name)

    async def _attempt(self, message: Summary) -> bool:
        from apprise import NotifyFormat  # noqa: PLC0415  # loaded already, with the receiver

        # In a thread: Apprise blocks, each of its requests for at most some seconds. Plain text, which it
        # then escapes where a receiver shows HTML or Markdown: the reasons in it come from devices.
        notify = asyncio.to_thread(
            self._send_by.notify, body=message.body, title=message.title, body_format=NotifyFormat.TEXT
        )
        try:
            async with asyncio.timeout(_SEND_S):
                return bool(await notify)
        except TimeoutError:
            return False
