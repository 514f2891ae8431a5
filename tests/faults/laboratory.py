"""Hurts a stack by schedule, heals it, and measures how long things take to come through again."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bus.config import Broker as Address
from bus.mqtt import Bus, passing_id
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import CLOUD, RECEIPT, STATUS
from tests.faults import books, components
from tests.faults.components import Broker, Command
from tests.faults.ledger import Ledger, reckon
from tests.faults.pulse import Pulse
from tests.faults.schedule import Fault
from tests.faults.stack import Stack
from tests.nodes import NODE

CRASH_S = 8.0
"""A component that does not reach its step within this time is killed where it is, in seconds."""

RECOVERY_S = 60.0
_LOOK_S = 0.2
_QUIET_S = 6.0
_DRAIN_S = 40.0
_CLOUD_SIDE = ("cloud-broker", "collector", "link bridge", "link collector")


@dataclass(slots=True)
class Report:
    """What a run saw.

    Args:
        recoveries: By target and kind, seconds from the healing to the next sign of life behind it.
        overdue: Faults behind which nothing came through within `RECOVERY_S`.
    """

    recoveries: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    overdue: list[Fault] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How many there were."""
        return sum(map(len, self.recoveries.values()))


class Laboratory:
    """Works on a running stack; entered when it listens to both brokers.

    Args:
        stack: Running.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.report = Report()
        self.receipts = Pulse()
        self._counters: dict[str, tuple[str, dict[str, int]]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Laboratory"]:
        """Listen to receipts and statuses for the length of a block."""
        edge, cloud = (self._bus(name) for name in ("edge-broker", "cloud-broker"))
        receipts = edge.subscribe(RECEIPT, queue=4096, node=NODE)
        statuses = [edge.subscribe(STATUS, queue=4096, node=NODE), cloud.subscribe(STATUS, node=CLOUD)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(bus.run()) for bus in (edge, cloud)]
            running.append(tasks.create_task(self._take_receipts(receipts)))
            running += [tasks.create_task(self._take_statuses(one)) for one in statuses]
            try:
                yield self
            finally:
                for task in running:
                    task.cancel()

    def _bus(self, name: str) -> Bus:
        broker = self.stack.components[name]
        assert isinstance(broker, Broker)
        return Bus(Address(port=broker.port, keepalive_s=5), passing_id("laboratory"))

    async def _take_receipts(self, receipts) -> None:
        async for delivery in receipts:
            delivery.ack()
            self.receipts.beat()

    async def _take_statuses(self, statuses) -> None:
        async for delivery in statuses:
            delivery.ack()
            with suppress(CodecError):
                status: Status = delivery.message()
                self._counters[status.run_id] = status.name, status.counters

    def counted(self, *names: str) -> int:
        """Return a sum of counters over all runs of all components, as far as they lived to report them."""
        return sum(counters.get(name, 0) for _, counters in self._counters.values() for name in names)

    async def inflict(self, fault: Fault) -> None:
        """Pause, hurt, hold, heal, and wait for the next sign of life behind it."""
        await asyncio.sleep(fault.pause_s)
        self._note("hurt", fault)
        await (self._hurt_link(fault) if fault.link else self._hurt_component(fault))
        healed = time.monotonic()
        self._note("healed", fault)
        try:
            async with asyncio.timeout(RECOVERY_S):
                await self._pulse(fault.target).next()
        except TimeoutError:
            self.report.overdue.append(fault)
        self.report.recoveries[fault.target, fault.kind].append(time.monotonic() - healed)

    def _note(self, what: str, fault: Fault) -> None:
        """Write down when something was done, for whoever looks for the cause of a failure."""
        with (self.stack.folder / "logs/faults.log").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what} {fault}\n")

    def _pulse(self, target: str) -> Pulse:
        name = target.removeprefix("link ")
        if name.startswith("device-"):
            return self.stack.command(name).pulse
        return self.receipts if target in _CLOUD_SIDE else self.stack.answered

    async def _hurt_component(self, fault: Fault) -> None:
        component = self.stack.components[fault.target]
        if fault.kind == "freeze":
            components.pause(component)
            await asyncio.sleep(fault.hold_s)
            components.resume(component)
            return
        if fault.kind == "crash":
            await self.crash(fault)
        elif fault.kind == "kill":
            await component.kill()
        else:
            await component.stop()
        await asyncio.sleep(fault.hold_s)
        await component.start()

    async def crash(self, fault: Fault) -> bool:
        """Let a component run into its death; tells whether it reached the step."""
        command = self.stack.command(fault.target)
        await command.stop()
        await command.start(at=fault.point, nth=fault.nth)
        try:
            async with asyncio.timeout(CRASH_S):
                await command.ended()
        except TimeoutError:
            await command.kill()
            return False
        return True

    async def _hurt_link(self, fault: Fault) -> None:
        assert fault.link is not None
        link = self.stack.links[fault.link]
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

    async def drain(self) -> None:
        """Heal everything, let each agent end when it has all answers, and wait until the edge's outbox is empty.

        Raises:
            TimeoutError: Something still waits for its answer after the deadline.
        """
        async with asyncio.timeout(_DRAIN_S):
            await self.stack.heal()
            async with asyncio.TaskGroup() as tasks:
                for device in self.stack.devices:
                    tasks.create_task(_finish(device))
            edge = self.stack.components["edge"]
            while books.look(self.stack.edge_database, edge).waiting:
                await asyncio.sleep(_LOOK_S)
            await self._settle()
        await edge.stop()

    async def _settle(self) -> None:
        """Wait until all samples are stored; where some are lost, until no more come."""
        sent = books.look(self.stack.edge_database, self.stack.components["edge"]).accepted
        stored, since = -1, time.monotonic()
        while stored < sent and time.monotonic() - since < _QUIET_S:
            before, stored = stored, await asyncio.to_thread(books.stored, self.stack.dataset)
            since = time.monotonic() if stored != before else since
            await asyncio.sleep(_LOOK_S)

    async def reckon(self) -> Ledger:
        """Hold the books against each other; call after `drain`."""
        known = {
            path.read_bytes(): path.parent.name for path in (self.stack.folder / "photos").rglob("*.jpg")
        }
        edge = books.read(self.stack.edge_database)
        return reckon(
            {device.name: books.read(self.stack.folder / device.name / f"{device.name}.db") for device in self.stack.devices},
            edge,
            await asyncio.to_thread(books.rows, self.stack.dataset),
            [line for device in self.stack.devices for line in device.lines],
            known,
        )


async def _finish(device: Command) -> None:
    """Let an agent take one more photo and end when it has all its answers."""
    await device.stop()
    await device.start("--count", "1")
    await device.ended()
