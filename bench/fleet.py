"""Measure fleets of 1 to 1000 devices: cost per photo, fairness, and memory per device.

Every simulated device has its own connection, session and topics; it keeps a photo until its final result and
resends it after a timeout. The handlers belong to one node and share its photos.
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
COST = "CPU-ms per photo"
_SATURATED = "photos/s at saturation"
_FAIRNESS = "fairness at saturation"
MEMORY = "memory of the handlers"
LOST = "unanswered"
OURS = "Gleaner"
_RESEND_S = 5.0
_TIMEOUT_S = 30.0
_WARMUP_S = 3.0
_START_S = 12.0
_SHORTEST_S = 4.0
_BASE = 10
_WITHIN = 0.2


class _Status(msgspec.Struct):
    photo_id: str
    status: str


@dataclass(slots=True)
class Device:
    """A simulated camera device.

    Args:
        name: Name of the device.
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

    async def request(self, image: bytes) -> None:
        """Send a photo, and resend it until its final result arrives."""
        assert self._wire is not None
        photo_id, topic = secrets.token_hex(16), PHOTO.name(node=NODE, device=self.name)
        self._waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        encoded = payload(self.name, image, photo_id)
        while not answer.done():
            # The same id again: the handler answers a duplicate from its records.
            self._wire.publish(topic, encoded)
            await asyncio.wait({answer}, timeout=_RESEND_S)
        self.answered += 1

    def _take(self, _topic: str, message: bytes) -> None:
        result = msgspec.json.decode(message, type=_Status)
        if result.status != "deferred" and (answer := self._waiting.pop(result.photo_id, None)) is not None:
            answer.set_result(None)


@contextlib.asynccontextmanager
async def _fleet(port: int, count: int) -> AsyncIterator[list[Device]]:
    """Connect `count` devices."""
    devices = [Device(f"d{number}") for number in range(count)]
    for device in devices:
        await device.connect(port)
    try:
        yield devices
    finally:
        for device in devices:
            device.close()


def fairness(shares: Sequence[float]) -> float:
    """Return Jain's fairness index: 1 for equal shares, 1 / N if one device has everything.

    Source: Jain, Chiu and Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    total = sum(shares)
    return total**2 / (len(shares) * sum(share**2 for share in shares)) if total else 0.0


@dataclass(frozen=True, slots=True)
class FleetRun:
    """A fleet with its own broker and model server, measured with an increasing number of handlers.

    `saturated`: measure at saturation too, and not only at a fixed rate.
    """

    setting: Setting
    count: int
    handlers: Sequence[int]
    seconds: float
    repeat: int
    table: Table
    saturated: bool = True

    async def run(self) -> None:
        """Run all measurements of this fleet."""
        folder = self.setting.folder / f"{self.count}-{self.repeat}"
        async with (
            stack.served(folder, "null") as running,
            _fleet(running.broker.port, self.count) as devices,
        ):
            pids: list[int] = []
            for number in self.handlers:
                for name in HANDLERS[len(pids) : number]:
                    no_samples = {"harvest.caps.per_minute": 1}
                    await stack.add_handler(running, folder, name, name=name, shares=True, **no_samples)
                    pids.append(running.pids[name])
                await self._at_fixed_rate(devices, pids, running.pids[stack.BROKER])
                if self.saturated:
                    await self._at_saturation(devices, number)
                resident_mb = sum(map(procfs.resident_bytes, pids)) / 1e6
                self.table.add(self._figure_name(MEMORY, number), OURS, resident_mb)

    async def _at_fixed_rate(self, devices: list[Device], handlers: list[int], broker: int) -> None:
        """Send at a rate that one handler can sustain, each photo from a random device."""
        photos, draw = pictures(64), random.Random(self.repeat)  # noqa: S311  # no adversary

        async def request(image: bytes) -> None:
            await draw.choice(devices).request(image)

        await open_loop(request, photos, arrivals(_PER_S, _WARMUP_S), _TIMEOUT_S)  # warm-up, not counted
        before_s = [procfs.cpu_s(pid) for pid in (broker, *handlers)]
        outcome = await open_loop(request, photos, arrivals(_PER_S, self.seconds, self.repeat), _TIMEOUT_S)
        spent_s = [
            procfs.cpu_s(pid) - before for pid, before in zip((broker, *handlers), before_s, strict=True)
        ]
        photos_answered = max(1, len(outcome.latencies_s))
        cost, lost = (self._figure_name(what, len(handlers)) for what in (COST, LOST))
        self.table.add(cost, "handlers", 1000 * sum(spent_s[1:]) / photos_answered)
        self.table.add(cost, "broker", 1000 * spent_s[0] / photos_answered)
        self.table.add(lost, OURS, outcome.failed)

    async def _at_saturation(self, devices: list[Device], handlers: int) -> None:
        """Let each device send its next photo after each result, and count the results per device."""
        loop, photos = asyncio.get_running_loop(), itertools.cycle(pictures(64))
        begin = loop.time() + _WARMUP_S
        end = begin + self.seconds
        shares: Counter[str] = Counter({device.name: 0 for device in devices})

        async def send_repeatedly(device: Device) -> None:
            while loop.time() < end:
                await device.request(next(photos))
                shares[device.name] += begin <= loop.time() < end

        async with asyncio.TaskGroup() as tasks:
            for device in devices:
                tasks.create_task(send_repeatedly(device), name=f"bench.{device.name}")
        self.table.add(self._figure_name(_SATURATED, handlers), OURS, shares.total() / self.seconds)
        self.table.add(self._figure_name(_FAIRNESS, handlers), OURS, fairness(list(shares.values())))

    def _figure_name(self, what: str, handlers: int) -> str:
        return named(what, self.count, handlers)


def named(what: str, devices: int, handlers: int) -> str:
    """Return the name of a figure of a fleet."""
    return f"{what}, {devices} device{'s'[: devices > 1]}, {handlers} handler{'s'[: handlers > 1]}"


async def measure(setting: Setting) -> list[Figure]:
    """Measure fleets of all sizes with one and more handlers."""
    fleets, handlers = ((10, 100), (1, 2)) if setting.quick else (_FLEETS, _HANDLERS)
    sizes = {devices: handlers if devices >= _BASE else handlers[:1] for devices in fleets}
    repeats = 1 if setting.quick else 2
    left_s = setting.seconds / repeats - _START_S * len(fleets)
    each_s = left_s / sum(map(len, sizes.values())) / 2 - _WARMUP_S
    seconds = 3.0 if setting.quick else max(_SHORTEST_S, each_s)
    table = Table()
    for repeat in range(repeats):
        for devices, numbers in sizes.items():
            await FleetRun(setting, devices, numbers, seconds, repeat, table).run()
    setting.note(
        f"Cost is measured at {_PER_S:g} photos per second for every fleet; at saturation each device "
        "sends its next photo after each result. Fairness is Jain's index of the results per device. A "
        "cap of one sample per minute excludes harvesting and decoding from the cost; `null` measures "
        "decoding. Several handlers belong to one node and share its photos through a shared subscription; "
        "they use one model server, because no release is made."
    )
    return figures(table, sizes)


def figures(table: Table, sizes: Mapping[int, Sequence[int]]) -> list[Figure]:
    """Return the figures, with the cost of each fleet relative to that of ten devices.

    Args:
        table: Measured values.
        sizes: Numbers of handlers by number of devices.
    """
    made = []
    for what, unit in (
        (COST, "ms"),
        (_SATURATED, "photos/s"),
        (_FAIRNESS, ""),
        (MEMORY, "MB"),
        (LOST, ""),
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
    """Return the cost of a photo relative to that with ten devices."""
    few, many = (table.values[named(COST, count, handlers), "handlers"] for count in (_BASE, devices))
    return Figure(
        name=named("cost of a photo", devices, handlers) + f", as a part of that with {_BASE}",
        of="handlers",
        unit="",
        values=[big / small for big, small in zip(many, few, strict=True)],
        goal=Goal(most=1 + _WITHIN),
    )


def _memory(table: Table, devices: int) -> Figure:
    """Return the memory of a handler for each device beyond ten."""
    few, many = (table.values[named(MEMORY, count, 1), OURS] for count in (_BASE, devices))
    return Figure(
        name=f"memory for a device, from {_BASE} to {devices} devices",
        of="handlers",
        unit="kB",
        values=[1000 * (big - small) / (devices - _BASE) for big, small in zip(many, few, strict=True)],
    )
