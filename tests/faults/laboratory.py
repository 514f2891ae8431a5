"""Inject faults into a stack, remove them, and measure the time until messages arrive again."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bus.mqtt.subscription import Subscription
from schemas.errors import CodecError
from schemas.messages import Command as DeviceCommand
from schemas.messages import Status
from schemas.topics import CLOUD, COMMAND, PHOTO, RECEIPT, STATUS
from tests.faults import acceptance, databases
from tests.faults.acceptance import Acceptance
from tests.faults.components import Command, pause, resume
from tests.faults.event_counter import EventCounter
from tests.faults.ledger import Ledger, compare
from tests.faults.preload import DISK_FAULTS
from tests.faults.schedule import Fault
from tests.faults.stack import Stack
from tests.faults.surroundings import disturb_link, disturb_process, send_hostile
from tests.nodes import NODE

CRASH_S = 8.0
"""Seconds after which a component that has not reached its step is killed."""

RECOVERY_S = 60.0
"""Seconds after which a recovery counts as overdue."""

_DRAIN_S = 600.0
_QUIET_S = 4.0
_LOOK_S = 0.1
_LOOK_DEVICES_S = 0.5
_STOPPING_S = 1.0
STUCK_S = 60.0
"""Seconds without progress after which messages that still wait are lost: nothing is disturbed then."""
_CLOUD_SIDE = ("cloud-broker", "collector", "link bridge", "link collector")


@dataclass(slots=True)
class Report:
    """Recoveries of a run.

    Args:
        recoveries: By target and kind of fault: seconds from its removal to the next message behind it.
        overdue: Faults without a message within `RECOVERY_S`.
        hostile: When hostile devices sent, on the monotonic clock.
        hostile_messages: How many messages they sent.
    """

    recoveries: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    overdue: list[Fault] = field(default_factory=list)
    hostile: list[tuple[float, float]] = field(default_factory=list)
    hostile_messages: int = 0

    @property
    def faults(self) -> int:
        """Number of faults."""
        return sum(map(len, self.recoveries.values()))


class ComponentDiedError(Exception):
    """A process ended early, for example at its start."""


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
        self._exclusive: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._hostile = stack.bus("edge-broker")

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
                    self._hostile.run(),
                    self._fail_on_death(),
                )
            ]
            try:
                yield self
            finally:
                for task in running:
                    task.cancel()

    async def _fail_on_death(self) -> None:
        """Raise when a process ends without the laboratory's doing, with the last lines of its log."""
        await self.stack.died.wait()
        raise ComponentDiedError("\n".join(self.stack.deaths()))

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
            # Two streams may draw the same target: one fault of it at a time.
            async with self._exclusive[fault.target]:
                self._note("injected", fault)
                began = time.monotonic()
                await self._apply(fault)
                self._note("removed", fault)
            removed = time.monotonic()
            if fault.target == "hostile":
                self.report.hostile.append((began, removed))
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

    async def _apply(self, fault: Fault) -> None:
        if fault.target == "hostile":
            await send_hostile(self._hostile, fault, self._count_hostile)
        elif fault.target in self.stack.links:
            await disturb_link(self.stack.links[fault.target], fault)
        elif fault.kind in DISK_FAULTS or fault.kind == "clock":
            await disturb_process(self.stack.command(fault.target), fault)
        else:
            await self._fault_component(fault)

    def _count_hostile(self) -> None:
        self.report.hostile_messages += 1

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

    async def settle(self) -> Ledger:
        """Remove all faults, wait until everything is answered and stored, and compare.

        No component is restarted, so that a message that would be sent again only by a new start is found.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.stack.heal()
                await self._stop_cameras()
                await self._drained()
                await self._stored()
        for command in (*self.stack.devices, self.stack.command("edge")):
            await command.stop()
        return await self._compare()

    async def _stop_cameras(self) -> None:
        """Command the devices to take no more photos, until they take none."""
        bus = self.stack.bus("edge-broker")
        running = asyncio.create_task(bus.run(), name="laboratory.stop-cameras")
        try:
            # A device that was started just now may not be connected yet, and would miss the command.
            while not await asyncio.to_thread(self._all_cameras_run):  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(_LOOK_S)
            frames = -1
            while frames != (frames := (await asyncio.to_thread(self._accepted)).frames):
                await bus.connected()
                for device in self.stack.devices:
                    command = DeviceCommand(
                        node=NODE, device=device.name, action="set-interval", interval_s=0
                    )
                    await bus.publish(COMMAND, command, node=NODE, device=device.name)
                await asyncio.sleep(_STOPPING_S)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _all_cameras_run(self) -> bool:
        return all(acceptance.has_frame(device.accepted, device.pid) for device in self.stack.devices)

    def _accepted(self) -> Acceptance:
        return acceptance.read([device.accepted for device in self.stack.devices if device.accepted.exists()])

    async def _drained(self) -> None:
        """Wait until no device has a photo without an answer, or none was answered for `STUCK_S`."""
        waiting, since = -1, time.monotonic()
        while time.monotonic() - since < STUCK_S:
            before, waiting = (
                waiting,
                sum(
                    databases.read_running(self._database(device), device).waiting
                    for device in self.stack.devices
                ),
            )
            if not waiting:
                return
            since = since if waiting == before else time.monotonic()
            await asyncio.sleep(_LOOK_DEVICES_S)

    async def _stored(self) -> None:
        """Wait until all samples are stored and have receipts; if some are lost, until no more arrive."""
        edge, stored, since = self.stack.command("edge"), -1, time.monotonic()
        progress, waiting = time.monotonic(), -1
        while (contents := databases.read_running(self.stack.edge_database, edge)).waiting or (
            stored < contents.accepted and time.monotonic() - since < _QUIET_S
        ):
            if contents.waiting != waiting:
                waiting, progress = contents.waiting, time.monotonic()
            if time.monotonic() - progress > STUCK_S:
                return
            before, stored = stored, await asyncio.to_thread(databases.stored, self.stack.dataset)
            since = since if stored == before else time.monotonic()
            await asyncio.sleep(_LOOK_S)

    def _database(self, device: Command) -> Path:
        return self.stack.folder / device.name / f"{device.name}.db"

    async def _compare(self) -> Ledger:
        photos = (self.stack.folder / "photos").rglob("*.jpg")
        devices = self.stack.devices
        return compare(
            [databases.read(self._database(device)) for device in devices],
            databases.read(self.stack.edge_database),
            await asyncio.to_thread(databases.rows, self.stack.dataset),
            [line for device in devices for line in device.lines],
            {photo.read_bytes(): photo.parent.name for photo in photos},
            acceptance=await asyncio.to_thread(self._accepted),
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
