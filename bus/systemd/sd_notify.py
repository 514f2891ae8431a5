"""Notify systemd that a service is ready and makes progress, for `Type=notify` and `WatchdogSec=`.

Without systemd, which the environment variable `NOTIFY_SOCKET` names, everything here does nothing.
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import structlog

from bus.backoff import backoff
from schemas.errors import TransientError

log = structlog.get_logger()

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"

_REPEAT_S = 1.0
"""Most seconds until `READY=1` is sent a second time, if systemd has not taken it."""
_STATUS_S = 10.0
"""Seconds between two status lines where no watchdog asks for more."""
_PER_DEADLINE = 3  # a late notification must not cost a restart
_MAX_STATUS = 200  # characters that `systemctl status` shows on its line


def notify(*lines: str) -> bool:
    """Send one notification, such as `READY=1`; return False if nothing receives notifications.

    It never waits: if systemd's queue is full, this notification is lost and the next one replaces it.
    """
    if not is_heard():
        return False
    path = os.environ["NOTIFY_SOCKET"]
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            sender.sendto("\n".join(lines).encode(errors="replace"), address)
    except OSError as error:
        log.warning("systemd.notify_failed", error=error.strerror or str(error))
        return False
    return True


def is_heard() -> bool:
    """Return True if the environment names a socket at which systemd listens."""
    return os.environ.get("NOTIFY_SOCKET", "")[:1] in {"/", "@"}


def interval_s() -> float:
    """Return the seconds between two notifications: a third of this process's deadline, if any."""
    deadline_us = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if mine and deadline_us.isdecimal() and int(deadline_us) > 0:
        return int(deadline_us) / 1e6 / _PER_DEADLINE
    return _STATUS_S


def status(unready_reason: str | None) -> str:
    """Return the line that `systemctl status` shows."""
    text = "ready" if unready_reason is None else f"degraded: {unready_reason}"
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS]}"


async def report(
    unready_reason: Callable[[], str | None], progress: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Report to systemd until cancelled; return at once if nothing receives notifications.

    The first report is `READY=1`: the tasks of the service run. It does not wait for the broker: devices
    and edges work without one, and a restart would not bring it back. It is repeated until systemd has taken
    it. Each further report is `WATCHDOG=1` after `progress` has returned, so that a service that hangs is
    restarted.

    Args:
        unready_reason: returns why the service is degraded, or None if it is not.
        progress: passes through the part of the service that could hang, such as the database's thread. A
            `TransientError` is progress too: the service retries, and reports it elsewhere.
    """
    if not is_heard():
        return
    pause_s = interval_s()
    try:
        for delay_s in backoff(_REPEAT_S, _STATUS_S):
            if notify(READY, status(unready_reason())):
                break
            await asyncio.sleep(delay_s)
        while True:
            try:
                if progress is not None:
                    await progress()
            except TransientError as error:
                log.debug("systemd.progress_failed", error=str(error))
            notify(ALIVE, status(unready_reason()))
            await asyncio.sleep(pause_s)
    finally:
        notify(STOPPING)
