"""Inject faults into a stack, remove them, and measure the time until messages arrive again."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bus.mqtt.subscription import Subscription
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import CLOUD, PHOTO, RECEIPT, STATUS
from tests.faults import databases
from tests.faults.components import Command, pause, resume
from tests.faults.event_counter import EventCounter
from tests.faults.ledger import Ledger, compare
from tests.faults.schedule import Fault
from tests.faults.stack import Stack
from tests.nodes import NODE

CRASH_S = 8.0
"""Seconds after which a component that has not reached its step is killed."""

RECOVERY_S = 60.0
"""Seconds after which a recovery counts as overdue."""

_DRAIN_S = 600.0
_QUIET_S = 4.0
_LOOK_S = 0.1
_CLOUD_SIDE = ("cloud-broker", "collector", "link bridge", "link collector")


@dataclass(slots=True)
class Report:
    """Recoveries of a run.

    Args:
        recoveries: By target and kind of fault: seconds from its removal to the next message behind it.
        overdue: Faults without a message within `RECOVERY_S`.
    """

    recoveries: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    overdue: list[Fault] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Number of faults."""
        return sum(map(len, self.recoveries.values()))


class Laboratory:
    """Injects faults into a running stack; entered by `listening`.

    Args:
        stack: A running stack.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.report = Report()
        self.photos = EventCounter()
        """Counts the photos that reach the edge's broker."""
        self.receipts = EventCounter()
        """Counts the receipts that reach the edge's broker."""
        self._counters: dict[str, dict[str, int]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Laboratory"]:
        """Subscribe at both brokers for the duration of a block."""
        edge, cloud = (self.stack.bus(name) for name in ("edge-broker", "cloud-broker"))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work)
                for work in (
                    _count_deliveries(edge.subscribe(PHOTO, queue=4096, node=NODE), self.photos),
                    _count_deliveries(edge.subscribe(RECEIPT, queue=4096, node=NODE), self.receipts),
                    self._count(edge.subscribe(STATUS, queue=4096, node=NODE)),
                    self._count(cloud.subscribe(STATUS, node=CLOUD)),
                    edge.run(),
                    cloud.run(),
                )
            ]
            try:
                yield self
            finally:
                for task in running:
                    task.cancel()

    async def _count(self, statuses: Subscription[Status]) -> None:
        async for delivery in statuses:
            delivery.ack()
            with suppress(CodecError):
                status = delivery.message()
                self._counters[status.run_id] = status.counters

    def counted(self, *names: str) -> int:
        """Return the sum of counters over all runs of all components, as far as they were reported."""
        return sum(counters.get(name, 0) for counters in self._counters.values() for name in names)

    async def inject(self, faults: Iterable[Fault]) -> None:
        """Inject faults one after the other: pause, inject, hold, remove, wait for the next message."""
        for fault in faults:
            await asyncio.sleep(fault.pause_s)
            self._note("injected", fault)
            await (self._fault_link if fault.target in self.stack.links else self._fault_component)(fault)
            self._note("removed", fault)
            removed = time.monotonic()
            try:
                async with asyncio.timeout(RECOVERY_S):
                    await self._counter_of(fault.target).next()
            except TimeoutError:
                self.report.overdue.append(fault)
            self.report.recoveries[fault.target, fault.kind].append(time.monotonic() - removed)

    def _note(self, what: str, fault: Fault) -> None:
        """Log the time of a fault, to find the cause of a failure."""
        with (self.stack.logs / "faults.log").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what} {fault}\n")

    def _counter_of(self, target: str) -> EventCounter:
        if target in _CLOUD_SIDE:
            return self.receipts
        name = target.removeprefix("link ")
        return self.stack.command(name).counter if name.startswith("device-") else self.stack.answered

    async def _fault_component(self, fault: Fault) -> None:
        component = self.stack.components[fault.target]
        if fault.kind == "freeze":
            pause(component)
            await asyncio.sleep(fault.hold_s)
            resume(component)
            return
        if fault.kind == "kill":
            await component.kill()
        else:
            await component.stop()
        if fault.kind == "crash":
            await self.crash(fault)
        await asyncio.sleep(fault.hold_s)
        await component.start()

    async def crash(self, fault: Fault, within_s: float = CRASH_S) -> bool:
        """Start a component that kills itself; return True if it reached the step."""
        command = self.stack.command(fault.target)
        await command.start(at=fault.point, nth=fault.nth)
        try:
            async with asyncio.timeout(within_s):
                await command.ended()
        except TimeoutError:
            await command.kill()
            return False
        return True

    async def _fault_link(self, fault: Fault) -> None:
        link = self.stack.links[fault.target]
        match fault.kind:
            case "cut":
                link.cut()
            case "halve":
                link.halve()
            case "delay":
                link.delay_s = 0.3
            case "silence":
                link.go_silent()
            case "close":
                link.closed = True
                link.cut()
        await asyncio.sleep(fault.hold_s)
        link.heal()

    async def settle(self) -> Ledger:
        """Remove all faults, wait until everything is answered and stored, and compare."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.stack.heal()
                await asyncio.gather(*(finish(device) for device in self.stack.devices))
                await self._stored()
        for command in (*self.stack.devices, self.stack.command("edge")):
            await command.stop()
        return await self._compare()

    async def _stored(self) -> None:
        """Wait until all samples are stored and have receipts; if some are lost, until no more arrive."""
        edge, stored, since = self.stack.command("edge"), -1, time.monotonic()
        while (contents := databases.read_running(self.stack.edge_database, edge)).waiting or (
            stored < contents.accepted and time.monotonic() - since < _QUIET_S
        ):
            before, stored = stored, await asyncio.to_thread(databases.stored, self.stack.dataset)
            since = since if stored == before else time.monotonic()
            await asyncio.sleep(_LOOK_S)

    async def _compare(self) -> Ledger:
        photos = (self.stack.folder / "photos").rglob("*.jpg")
        devices = self.stack.devices
        return compare(
            [databases.read(self.stack.folder / device.name / f"{device.name}.db") for device in devices],
            databases.read(self.stack.edge_database),
            await asyncio.to_thread(databases.rows, self.stack.dataset),
            [line for device in devices for line in device.lines],
            {photo.read_bytes(): photo.parent.name for photo in photos},
        )


async def _count_deliveries(subscription: Subscription, counter: EventCounter) -> None:
    async for delivery in subscription:
        delivery.ack()
        counter.add()


async def finish(device: Command) -> None:
    """Restart a device for one more photo; wait until it has all its answers and ends."""
    await device.stop()
    await device.start("--count", "1")
    await device.ended()
