"""Hurts a stack as told, heals it, and measures how long it takes until something comes through again."""

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
from tests.faults import books
from tests.faults.components import Command, pause, resume
from tests.faults.ledger import Ledger, reckon
from tests.faults.pulse import Pulse
from tests.faults.schedule import Fault
from tests.faults.stack import Stack
from tests.nodes import NODE

CRASH_S = 8.0
"""A component that does not reach its step within this time is killed where it is."""

RECOVERY_S = 60.0
"""What needs longer to come through again is overdue."""

_DRAIN_S = 120.0
_QUIET_S = 4.0
_LOOK_S = 0.1
_CLOUD_SIDE = ("cloud-broker", "collector", "link bridge", "link collector")


@dataclass(slots=True)
class Report:
    """What a run saw.

    Args:
        recoveries: By target and kind of fault, seconds from the healing to the next sign of life behind it.
        overdue: Faults behind which nothing came through within `RECOVERY_S`.
    """

    recoveries: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    overdue: list[Fault] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How many there were."""
        return sum(map(len, self.recoveries.values()))


class Laboratory:
    """Works on a running stack; `listening` enters it.

    Args:
        stack: Running.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.report = Report()
        self.photos = Pulse()
        """Beats with each photo that reaches the edge's broker."""
        self.receipts = Pulse()
        """Beats with each receipt that reaches the edge's broker."""
        self._counters: dict[str, dict[str, int]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Laboratory"]:
        """Listen at both brokers for the length of a block."""
        edge, cloud = (self.stack.bus(name) for name in ("edge-broker", "cloud-broker"))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work)
                for work in (
                    _beat(edge.subscribe(PHOTO, queue=4096, node=NODE), self.photos),
                    _beat(edge.subscribe(RECEIPT, queue=4096, node=NODE), self.receipts),
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
        """Return a sum of counters over all runs of all components, as far as they lived to report them."""
        return sum(counters.get(name, 0) for counters in self._counters.values() for name in names)

    async def inflict(self, faults: Iterable[Fault]) -> None:
        """Inflict one fault after the other: pause, hurt, hold, heal, and wait for a sign of life."""
        for fault in faults:
            await asyncio.sleep(fault.pause_s)
            self._note("hurt", fault)
            await (self._hurt_link if fault.target in self.stack.links else self._hurt_component)(fault)
            self._note("healed", fault)
            healed = time.monotonic()
            try:
                async with asyncio.timeout(RECOVERY_S):
                    await self._pulse(fault.target).next()
            except TimeoutError:
                self.report.overdue.append(fault)
            self.report.recoveries[fault.target, fault.kind].append(time.monotonic() - healed)

    def _note(self, what: str, fault: Fault) -> None:
        """Write down when something was done, for whoever looks for the cause of a failure."""
        with (self.stack.logs / "faults.log").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what} {fault}\n")

    def _pulse(self, target: str) -> Pulse:
        if target in _CLOUD_SIDE:
            return self.receipts
        name = target.removeprefix("link ")
        return self.stack.command(name).pulse if name.startswith("device-") else self.stack.answered

    async def _hurt_component(self, fault: Fault) -> None:
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
        """Start a component that runs into its death; tells whether it reached the step."""
        command = self.stack.command(fault.target)
        await command.start(at=fault.point, nth=fault.nth)
        try:
            async with asyncio.timeout(within_s):
                await command.ended()
        except TimeoutError:
            await command.kill()
            return False
        return True

    async def _hurt_link(self, fault: Fault) -> None:
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
        """Heal everything, wait until all is answered and stored or the deadline is over, and reckon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.stack.heal()
                await asyncio.gather(*(finish(device) for device in self.stack.devices))
                await self._stored()
        for command in (*self.stack.devices, self.stack.command("edge")):
            await command.stop()
        return await self._reckon()

    async def _stored(self) -> None:
        """Wait until all samples are stored and receipted; where some are lost, until no more come."""
        edge, stored, since = self.stack.command("edge"), -1, time.monotonic()
        while (book := books.look(self.stack.edge_database, edge)).waiting or (
            stored < book.accepted and time.monotonic() - since < _QUIET_S
        ):
            before, stored = stored, await asyncio.to_thread(books.stored, self.stack.dataset)
            since = since if stored == before else time.monotonic()
            await asyncio.sleep(_LOOK_S)

    async def _reckon(self) -> Ledger:
        photos = (self.stack.folder / "photos").rglob("*.jpg")
        devices = self.stack.devices
        return reckon(
            [books.read(self.stack.folder / device.name / f"{device.name}.db") for device in devices],
            books.read(self.stack.edge_database),
            await asyncio.to_thread(books.rows, self.stack.dataset),
            [line for device in devices for line in device.lines],
            {photo.read_bytes(): photo.parent.name for photo in photos},
        )


async def _beat(subscription: Subscription, pulse: Pulse) -> None:
    async for delivery in subscription:
        delivery.ack()
        pulse.beat()


async def finish(device: Command) -> None:
    """Let an agent take one more photo and end when it has all its answers."""
    await device.stop()
    await device.start("--count", "1")
    await device.ended()
