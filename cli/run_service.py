"""Run a service until a signal ends it, with a deadline for its clean-up; or a command's work to its end."""

import asyncio
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import msgspec
import structlog
from msgspec import Struct

from bus.log import stderr_captured
from cli import exit_codes
from schemas.distribution import version

T = TypeVar("T")

STOP_S = 10.0
"""Seconds that a service may take to finish after a signal."""

_USER_IN_URL = re.compile(r"//[^/@\s]+@")

log = structlog.get_logger()


def serve(name: str, configuration: Struct, service: Coroutine[Any, Any, T]) -> T | None:
    """Run a service; SIGTERM or Ctrl-C cancels it, and it must finish within `STOP_S`.

    Logs a line at the start, with the version and the settings that are not the defaults, and one at the end.
    A second signal exits at once with code 1.

    Returns:
        What the service returned; None if SIGTERM ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it, after its clean-up.
    """

    def log_start() -> None:
        log.info("service.started", service=name, version=version(), configuration=changed(configuration))

    began = time.monotonic()
    reason = "failed"
    # What was imported stays; to go through it in a collection would stop everything for 10 to 30 ms.
    gc.freeze()
    # Off a terminal each line of the log is JSON, also what libraries write.
    capture = nullcontext() if sys.stderr.isatty() else stderr_captured()
    try:
        with capture:
            signalled, result = asyncio.run(_until_signalled(service, log_start))
        reason = "finished" if signalled is None else signalled.name
    finally:
        log.info("service.stopped", service=name, reason=reason, uptime_s=round(time.monotonic() - began, 1))
    if signalled is signal.SIGINT:
        raise KeyboardInterrupt
    return result


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command to its end.

    Raises:
        KeyboardInterrupt: A signal ended it before, after its clean-up: the command has not done its work.
    """
    signalled, result = asyncio.run(_until_signalled(work))
    if signalled is not None:
        raise KeyboardInterrupt
    return cast(T, result)  # None only after a signal, unless T allows it


def changed(configuration: Struct) -> dict[str, object]:
    """Return the fields of a configuration that differ from their defaults; users in URLs are hidden."""
    fields: dict[str, object] = msgspec.to_builtins(configuration)
    try:
        defaults: dict[str, object] = msgspec.to_builtins(type(configuration)())
    except TypeError:  # a field has no default
        defaults = {}
    return _difference(fields, defaults)


def _difference(fields: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in fields.items():
        default = defaults.get(name)
        if value == default:
            continue
        if isinstance(value, dict):
            found[name] = _difference(value, default if isinstance(default, dict) else {})
        else:
            found[name] = _without_users(value)
    return found


def _without_users(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_without_users(one) for one in value]
    return _USER_IN_URL.sub("//***@", value) if isinstance(value, str) else value


async def _until_signalled(
    service: Coroutine[Any, Any, T], on_started: Callable[[], None] = lambda: None
) -> tuple[signal.Signals | None, T | None]:
    """Return the signal that ended it, None without one, and its result.

    Args:
        service: To run.
        on_started: Called once signals end it in order; until then they kill the process.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(service, name="service")
    signalled: signal.Signals | None = None

    def stop(number: signal.Signals) -> None:
        nonlocal signalled
        if signalled is not None:
            os._exit(exit_codes.FAILED)
        signalled = number
        task.cancel()
        # A timer, not asyncio.timeout: a clean-up that ignores cancellation would hang the timeout too.
        loop.call_later(STOP_S, _give_up)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    on_started()
    try:
        result = await task
    except asyncio.CancelledError:
        if signalled is None:
            raise  # cancelled, but not by a signal
        return signalled, None
    return signalled, result


def _give_up() -> None:
    # By the log: what is written to standard error itself may be in a pipe that this process has yet to read.
    log.error("service.gave_up", waited_s=STOP_S, reason="did not finish after the signal: exit now")
    os._exit(exit_codes.FAILED)
