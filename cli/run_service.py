"""Run a service until a signal ends it, with a deadline for its clean-up."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STOP_S = 10.0
"""Seconds that a service may take to finish after a signal."""


def run(service: Coroutine[Any, Any, T]) -> T | None:
    """Run a service; SIGTERM or Ctrl-C cancels it, and it must finish within `STOP_S`.

    A second signal exits at once with code 1.

    Returns:
        What the service returned; None if a signal ended it.
    """
    return asyncio.run(_until_signalled(service))


async def _until_signalled(service: Coroutine[Any, Any, T]) -> T | None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(service, name="service")
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if signalled:
            os._exit(1)
        signalled = True
        task.cancel()
        # A timer, not asyncio.timeout: a clean-up that ignores cancellation would hang the timeout too.
        loop.call_later(STOP_S, _give_up)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if signalled:
            return None
        raise  # cancelled, but not by a signal


def _give_up() -> None:
    sys.stderr.write(f"not finished {STOP_S:g} s after the signal: exit now\n")
    sys.stderr.flush()
    os._exit(1)
