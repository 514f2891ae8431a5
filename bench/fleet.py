"""From one device to a thousand: what a photo costs, who gets how much, and the memory that a device takes.

Every simulated device has a connection, a session and topics of its own, keeps a photo until its final
result and sends it again if that takes long. Several handlers are several nodes, which is how Gleaner shares
the work: a photo that comes again has to meet the handler that has recorded its answer.
"""

import asyncio
import contextlib
import itertools
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec

from bench import procfs, stack, wire
from bench.figures import Figure, Goal
from bench.load import arrivals, open_loop
from bench.photos import payload, pictures
from bench.setting import Setting
from bench.table import Table
from schemas.topics import PHOTO, RESULT

_FLEETS = (1, 10, 100, 1000)
_HANDLERS = (1, 2, 4)
_SHARED_FLEET = 100
_PER_S = 60.0
_COST = "CPU-ms per photo"
_SATURATED = "photos/s at saturation"
_FAIRNESS = "fairness at saturation"
_MEMORY = "memory of the handlers"
_LOST = "unanswered"
OURS = "Gleaner"
_RESEND_S = 5.0
_PATIENCE_S = 30.0
_SETTLE_S = 3.0
_START_S = 15.0
_BASE = 10
_WITHIN = 0.2


class _Said(msgspec.Struct):
    photo_id: str
    status: str


@dataclass(slots=True)
class Device:
    """A simulated camera device.

    Args:
        node: That answers it.
        name: Its own.
    """

    node: str
    name: str
    answered: int = 0
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _wire: wire.Wire | None = None

    async def connect(self, port: int) -> None:
        """Connect with a durable session and subscribe to its results."""
        client_id = f"gleaner-{self.node}-{self.name}"
        self._wire = await wire.connect(port, client_id, self._take, clean=False)
        await self._wire.subscribe(RESULT.name(node=self.node, device=self.name))

    def close(self) -> None:
        """Disconnect."""
        if self._wire is not None:
            self._wire.close()

    async def ask(self, image: bytes) -> None:
        """Send a photo until its final result is here."""
        assert self._wire is not None
        photo_id, topic = secrets.token_hex(16), PHOTO.name(node=self.node, device=self.name)
        self._waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        encoded = payload(self.name, image, photo_id, self.node)
        while not answer.done():
            self._wire.publish(topic, encoded)
            await asyncio.wait({answer}, timeout=_RESEND_S)
        self.answered += 1

    def _take(self, _topic: str, message: bytes) -> None:
        said = msgspec.json.decode(message, type=_Said)
        if said.status != "deferred" and (answer := self._waiting.pop(said.photo_id, None)) is not None:
            answer.set_result(None)


@contextlib.asynccontextmanager
async def _fleet(port: int, nodes: Sequence[str], count: int) -> AsyncIterator[list[Device]]:
    """Connect so many devices, shared out among the nodes."""
    devices = [
        Device(node, f"d{number}") for number, node in zip(range(count), itertools.cycle(nodes), strict=False)
    ]
    for device in devices:
        await device.connect(port)
    try:
        yield devices
    finally:
        for device in devices:
            device.close()


def fairness(shares: Sequence[float]) -> float:
    """Return Jain's index of shares: 1 if all have the same, 1 / N if one has everything.

    Source: Jain, Chiu and Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    total = sum(shares)
    return total**2 / (len(shares) * sum(share**2 for share in shares)) if total else 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """So many devices and handlers, with a broker and a model server of their own."""

    setting: Setting
    devices: int
    handlers: int
    seconds: float
    repeat: int

    async def run(self, table: Table) -> None:
        """Measure all of it."""
        folder = self.setting.folder / f"{self.devices}-{self.handlers}-{self.repeat}"
        nodes = [f"edge-{number}" for number in range(1, self.handlers + 1)]
        async with stack.served(folder, "null") as running:
            for node in nodes:
                rare = {"harvest.caps.per_minute": 1}
                await stack.add_handler(running, folder, f"handler {node}", node=node, **rare)
            handlers = [running.pids[f"handler {node}"] for node in nodes]
            async with _fleet(running.broker.port, nodes, self.devices) as devices:
                await self._paced(devices, handlers, running.pids[stack.BROKER], table)
                await self._saturated(devices, table)
                resident_mb = sum(map(procfs.resident_bytes, handlers)) / 1e6
                table.add(self._named(_MEMORY), OURS, resident_mb)

    async def _paced(self, devices: list[Device], handlers: list[int], broker: int, table: Table) -> None:
        """Send at a pace that any number of handlers keeps, each photo from a device chosen by chance."""
        photos, draw = pictures(64), random.Random(self.repeat)  # noqa: S311  # chance without an adversary

        async def ask(image: bytes) -> None:
            await draw.choice(devices).ask(image)

        await open_loop(ask, photos, arrivals(_PER_S, _SETTLE_S), _PATIENCE_S)
        before_s = [procfs.cpu_s(pid) for pid in (broker, *handlers)]
        outcome = await open_loop(ask, photos, arrivals(_PER_S, self.seconds, self.repeat), _PATIENCE_S)
        spent_s = [
            procfs.cpu_s(pid) - before for pid, before in zip((broker, *handlers), before_s, strict=True)
        ]
        photos_answered = max(1, len(outcome.latencies_s))
        table.add(self._named(_COST), "handlers", 1000 * sum(spent_s[1:]) / photos_answered)
        table.add(self._named(_COST), "broker", 1000 * spent_s[0] / photos_answered)
        table.add(self._named(_LOST), OURS, outcome.failed)

    async def _saturated(self, devices: list[Device], table: Table) -> None:
        """Let each device send a photo whenever one is answered, and count who got how many."""
        loop, photos = asyncio.get_running_loop(), itertools.cycle(pictures(64))
        begin = loop.time() + _SETTLE_S
        end = begin + self.seconds
        shares: Counter[str] = Counter({device.name: 0 for device in devices})

        async def keep_asking(device: Device) -> None:
            while loop.time() < end:
                await device.ask(next(photos))
                shares[device.name] += begin <= loop.time() < end

        async with asyncio.TaskGroup() as tasks:
            for device in devices:
                tasks.create_task(keep_asking(device), name=f"bench.{device.name}")
        table.add(self._named(_SATURATED), OURS, shares.total() / self.seconds)
        table.add(self._named(_FAIRNESS), OURS, fairness(list(shares.values())))

    def _named(self, what: str) -> str:
        return named(what, self.devices, self.handlers)


def named(what: str, devices: int, handlers: int) -> str:
    """Return the name of a figure of a fleet."""
    return f"{what}, {devices} device{'s'[: devices > 1]}, {handlers} handler{'s'[: handlers > 1]}"


async def measure(setting: Setting) -> list[Figure]:
    """Measure fleets of all sizes with one handler, and one of them with several."""
    fleets, handlers = ((10, 100), (2,)) if setting.quick else (_FLEETS, _HANDLERS[1:])
    sizes = [*((count, 1) for count in fleets), *((_SHARED_FLEET, number) for number in handlers)]
    repeats = 1 if setting.quick else 2
    seconds = 3.0 if setting.quick else max(5.0, (setting.seconds / repeats / len(sizes) - _START_S) / 2)
    table = Table()
    for repeat in range(repeats):
        for devices, number in sizes:
            await Trial(setting, devices, number, seconds, repeat).run(table)
    setting.note(
        f"Cost is at {_PER_S:g} photos a second, however many devices send them; at saturation each device "
        "sends a photo whenever one is answered. Fairness is Jain's index of what they got then. Hardly "
        "anything is harvested, so that what new devices show for the first time is not counted as a cost."
    )
    return figures(table, sizes)


def figures(table: Table, sizes: Sequence[tuple[int, int]]) -> list[Figure]:
    """Return what was found, with the cost of each fleet held against that of ten devices."""
    made = []
    for what, unit in (
        (_COST, "ms"),
        (_SATURATED, "photos/s"),
        (_FAIRNESS, ""),
        (_MEMORY, "MB"),
        (_LOST, ""),
    ):
        for devices, number in sizes:
            name = named(what, devices, number)
            made += table.figures(name, unit, chart=f"{what} by devices" if number == 1 else None, x=devices)
    return made + _growth(table, [devices for devices, number in sizes if number == 1])


def _growth(table: Table, fleets: Sequence[int]) -> list[Figure]:
    """Return what more than ten devices add: to the cost of a photo, and in memory for each."""
    made, most = [], 1 + _WITHIN
    cost, memory = ((named(what, _BASE, 1)) for what in (_COST, _MEMORY))
    for devices in (number for number in fleets if number > _BASE):
        bigger = table.values[named(_COST, devices, 1), "handlers"]
        ratios = [big / small for big, small in zip(bigger, table.values[cost, "handlers"], strict=True)]
        name = f"cost of a photo with {devices} devices, as a part of that with {_BASE}"
        made.append(Figure(name=name, of="handlers", unit="", values=ratios, goal=Goal(most=most)))
        held = zip(table.values[named(_MEMORY, devices, 1), OURS], table.values[memory, OURS], strict=True)
        each_kb = [1000 * (big - small) / (devices - _BASE) for big, small in held]
        name = f"memory for a device, from {_BASE} to {devices} devices"
        made.append(Figure(name=name, of="handlers", unit="kB", values=each_kb))
    return made
