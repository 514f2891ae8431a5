"""From one device to a thousand: what a photo costs, who gets how much, and the memory that a device takes.

Every simulated device has a connection, a session and topics of its own, keeps a photo until its final
result and sends it again if that takes long. The handlers are of one node and share its photos.
"""

import asyncio
import contextlib
import itertools
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bench import procfs, stack, wire
from bench.figures import Figure, Goal
from bench.load import arrivals, open_loop
from bench.photos import NODE, payload, pictures
from bench.setting import Setting
from bench.table import Table
from schemas.topics import HANDLERS, PHOTO, RESULT

_FLEETS = (1, 10, 100, 1000)
_HANDLERS = (1, 2, 4)
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
_START_S = 12.0
_SHORTEST_S = 4.0
_BASE = 10
_WITHIN = 0.2


class _Said(msgspec.Struct):
    photo_id: str
    status: str


@dataclass(slots=True)
class Device:
    """A simulated camera device.

    Args:
        name: Its own.
    """

    name: str
    answered: int = 0
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _wire: wire.Wire | None = None

    async def connect(self, port: int) -> None:
        """Connect with a durable session and subscribe to its results."""
        client_id = f"gleaner-{NODE}-{self.name}"
        self._wire = await wire.connect(port, client_id, self._take, clean=False)
        await self._wire.subscribe(RESULT.name(node=NODE, device=self.name))

    def close(self) -> None:
        """Disconnect."""
        if self._wire is not None:
            self._wire.close()

    async def ask(self, image: bytes) -> None:
        """Send a photo until its final result is here."""
        assert self._wire is not None
        photo_id, topic = secrets.token_hex(16), PHOTO.name(node=NODE, device=self.name)
        self._waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        encoded = payload(self.name, image, photo_id)
        while not answer.done():
            self._wire.publish(topic, encoded)
            await asyncio.wait({answer}, timeout=_RESEND_S)
        self.answered += 1

    def _take(self, _topic: str, message: bytes) -> None:
        said = msgspec.json.decode(message, type=_Said)
        if said.status != "deferred" and (answer := self._waiting.pop(said.photo_id, None)) is not None:
            answer.set_result(None)


@contextlib.asynccontextmanager
async def _fleet(port: int, count: int) -> AsyncIterator[list[Device]]:
    """Connect so many devices."""
    devices = [Device(f"d{number}") for number in range(count)]
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
    """So many devices, with a broker and a model server of their own, against more and more handlers."""

    setting: Setting
    count: int
    handlers: Sequence[int]
    seconds: float
    repeat: int
    table: Table

    async def run(self) -> None:
        """Measure all of it."""
        folder = self.setting.folder / f"{self.count}-{self.repeat}"
        async with (
            stack.served(folder, "null") as running,
            _fleet(running.broker.port, self.count) as devices,
        ):
            pids: list[int] = []
            for number in self.handlers:
                for name in HANDLERS[len(pids) : number]:
                    rare = {"harvest.caps.per_minute": 1}
                    await stack.add_handler(running, folder, name, name=name, shares=True, **rare)
                    pids.append(running.pids[name])
                await self._paced(devices, pids, running.pids[stack.BROKER])
                await self._saturated(devices, number)
                resident_mb = sum(map(procfs.resident_bytes, pids)) / 1e6
                self.table.add(self._named(_MEMORY, number), OURS, resident_mb)

    async def _paced(self, devices: list[Device], handlers: list[int], broker: int) -> None:
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
        cost, lost = (self._named(what, len(handlers)) for what in (_COST, _LOST))
        self.table.add(cost, "handlers", 1000 * sum(spent_s[1:]) / photos_answered)
        self.table.add(cost, "broker", 1000 * spent_s[0] / photos_answered)
        self.table.add(lost, OURS, outcome.failed)

    async def _saturated(self, devices: list[Device], handlers: int) -> None:
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
        self.table.add(self._named(_SATURATED, handlers), OURS, shares.total() / self.seconds)
        self.table.add(self._named(_FAIRNESS, handlers), OURS, fairness(list(shares.values())))

    def _named(self, what: str, handlers: int) -> str:
        return named(what, self.count, handlers)


def named(what: str, devices: int, handlers: int) -> str:
    """Return the name of a figure of a fleet."""
    return f"{what}, {devices} device{'s'[: devices > 1]}, {handlers} handler{'s'[: handlers > 1]}"


async def measure(setting: Setting) -> list[Figure]:
    """Measure fleets of all sizes against one handler and several."""
    fleets, handlers = ((10, 100), (1, 2)) if setting.quick else (_FLEETS, _HANDLERS)
    sizes = {devices: handlers if devices >= _BASE else handlers[:1] for devices in fleets}
    repeats = 1 if setting.quick else 2
    left_s = setting.seconds / repeats - _START_S * len(fleets)
    each_s = left_s / sum(map(len, sizes.values())) / 2 - _SETTLE_S
    seconds = 3.0 if setting.quick else max(_SHORTEST_S, each_s)
    table = Table()
    for repeat in range(repeats):
        for devices, numbers in sizes.items():
            await Trial(setting, devices, numbers, seconds, repeat, table).run()
    setting.note(
        f"Cost is at {_PER_S:g} photos a second, however many devices send them; at saturation each device "
        "sends a photo whenever one is answered. Fairness is Jain's index of what they got then. A cap "
        "leaves no room for samples, so that what new devices show for the first time is not counted as a "
        "cost; nor is decoding, which `null` measures. "
        "Several handlers are of one node and share its photos through a shared subscription; they have one "
        "model server, because no release comes."
    )
    return figures(table, sizes)


def figures(table: Table, sizes: Mapping[int, Sequence[int]]) -> list[Figure]:
    """Return what was found, with the cost of each fleet held against that of ten devices.

    Args:
        table: What was measured.
        sizes: The numbers of handlers against each number of devices.
    """
    made = []
    for what, unit in (
        (_COST, "ms"),
        (_SATURATED, "photos/s"),
        (_FAIRNESS, ""),
        (_MEMORY, "MB"),
        (_LOST, ""),
    ):
        for devices, numbers in sizes.items():
            for number in numbers:
                chart = f"{what} by devices" if number == 1 else None
                made += table.figures(named(what, devices, number), unit, chart=chart, x=devices)
    for devices in (count for count in sizes if count > _BASE):
        for number in sizes[devices]:
            made.append(_growth(table, devices, number))
        made.append(_memory(table, devices))
    return made


def _growth(table: Table, devices: int, handlers: int) -> Figure:
    """Return what more than ten devices add to the cost of a photo."""
    few, many = (table.values[named(_COST, count, handlers), "handlers"] for count in (_BASE, devices))
    return Figure(
        name=named("cost of a photo", devices, handlers) + f", as a part of that with {_BASE}",
        of="handlers",
        unit="",
        values=[big / small for big, small in zip(many, few, strict=True)],
        goal=Goal(most=1 + _WITHIN),
    )


def _memory(table: Table, devices: int) -> Figure:
    """Return what more than ten devices take of a handler's memory, each."""
    few, many = (table.values[named(_MEMORY, count, 1), OURS] for count in (_BASE, devices))
    return Figure(
        name=f"memory for a device, from {_BASE} to {devices} devices",
        of="handlers",
        unit="kB",
        values=[1000 * (big - small) / (devices - _BASE) for big, small in zip(many, few, strict=True)],
    )
