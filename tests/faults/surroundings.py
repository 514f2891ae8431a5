"""Faults of what surrounds the processes: networks, disks, clocks, and hostile devices."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from bus.mqtt.client import Bus
from bus.mqtt.connection.connection import BrokerConnectionError
from schemas.errors import PermanentError
from tests.faults.components import Command
from tests.faults.hostile import HOSTILE
from tests.faults.preload import DISK_FAULTS
from tests.faults.schedule import Fault
from tests.proxy import Proxy

SLOW_BYTES_PER_S = 8_000
_DELAY_S = 0.3
_LATENCY_S = 1.0
_STORM_S = 0.2
_BURST_S = 0.5
"""Seconds between the bursts of a hostile device."""
_ENDING_S = 3.0
"""Seconds in which a process that met an error of its disk may still be ending, on a busy machine."""


async def disturb_link(link: Proxy, fault: Fault) -> None:
    """Disturb a connection for the time of the fault, then heal it."""
    if fault.kind == "storm":
        await _cut_often(link, fault.hold_s)
    else:
        _DISTURBANCES[fault.kind](link)
        await asyncio.sleep(fault.hold_s)
    link.heal()


async def _cut_often(link: Proxy, hold_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(hold_s):
            while True:
                link.cut()
                await asyncio.sleep(_STORM_S)


def _close(link: Proxy) -> None:
    link.closed = True
    link.cut()


_DISTURBANCES: dict[str, Callable[[Proxy], None]] = {
    "cut": Proxy.cut,
    "halve": Proxy.halve,
    "delay": lambda link: setattr(link, "delay_s", _DELAY_S),
    "latency": lambda link: setattr(link, "delay_s", _LATENCY_S),
    "silence": Proxy.go_silent,
    "close": _close,
    "corrupt": Proxy.corrupt,
    "half-open": lambda link: setattr(link, "half_open", True),
    "slow": lambda link: setattr(link, "bytes_per_s", SLOW_BYTES_PER_S),
}


async def disturb_process(command: Command, fault: Fault) -> None:
    """Let the disk of a process fail, or its clock jump, for the time of the fault; start it if it ended."""
    assert command.preload is not None
    if fault.kind == "clock":
        command.preload.set(clock_s=fault.jump_s)
        await asyncio.sleep(fault.hold_s)
        command.preload.set()
        return
    command.may_stop = True
    command.preload.set(**DISK_FAULTS[fault.kind])
    await asyncio.sleep(fault.hold_s)
    command.preload.set()
    await asyncio.sleep(_ENDING_S)
    if command.pid is None:
        await command.start()
    command.may_stop = False


async def send_hostile(bus: Bus, fault: Fault, sent: Callable[[], None]) -> None:
    """Publish bursts of a hostile device for the time of the fault.

    Args:
        bus: A connection to the broker of the node.
        fault: Its kind is one of `HOSTILE`.
        sent: Called after each message.
    """
    draw = random.Random(f"{fault.kind} {fault.hold_s}")
    with suppress(TimeoutError):
        async with asyncio.timeout(fault.hold_s):
            while True:
                for topic, payload in HOSTILE[fault.kind](draw):
                    await bus.connected()
                    with suppress(BrokerConnectionError, PermanentError):
                        await bus.publish_bytes(topic, payload)
                        sent()
                await asyncio.sleep(_BURST_S)
