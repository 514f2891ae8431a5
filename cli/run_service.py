"""Running a service until a signal ends it, in order and within a deadline."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STOP_S = 10.0
"""A service that is told to stop has so long to finish, in seconds."""


def run(service: Coroutine[Any, Any, T]) -> T | None:
    """Run a service; SIGTERM and Ctrl-C cancel it, after which it may finish within `STOP_S`.

    Returns:
        What the service returned; None if a signal ended it.
    """
    return asyncio.run(_until_told(service))


async def _until_told(service: Coroutine[Any, Any, T]) -> T | None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(service, name="service")
    told = False

    def stop() -> None:
        nonlocal told
        if told:  # told twice: at once
            os._exit(1)
        told = True
        task.cancel()
        loop.call_later(STOP_S, _give_up)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            return None
        raise


def _give_up() -> None:
    sys.stderr.write(f"not finished {STOP_S} s after the signal: ending anyway\n")
    sys.stderr.flush()
    os._exit(1)
