"""Helpers for tests of edge and cloud: photos, an observer on the bus, and real processes."""

import asyncio
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import msgspec
from PIL import Image

from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge import service
from edge.config import EdgeConfig
from schemas.codec import encode
from schemas.errors import CodecError
from schemas.messages import Event, Message, Photo, Receipt, Result, Sample, Status
from schemas.policy_rules import HarvestRules
from schemas.topics import EVENT, PHOTO, RECEIPT, RESULT, SAMPLE, STATUS, Topic
from tests.conftest import DEADLINE_S, ROOT, eventually

NODE = "edge-1"
_END_S = 900.0  # only ends a hang: a training on a busy machine takes long
QUICK = OutboxLimits(resend_first_s=0.3, resend_cap_s=1.0)
_SHADES = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.15, 0.9, 0.15),
    "blue": (0.15, 0.15, 1.0),
    "grey": (0.5, 0.5, 0.5),
    "yellow": (1.0, 0.9, 0.1),
}


def photo(seed: int, colour: str = "red", size: tuple[int, int] = (90, 80), kind: str = "JPEG") -> bytes:
    """Return a picture of one colour; the seed decides its brightness pattern and so its difference hash."""
    draw = random.Random(seed)
    pattern = Image.frombytes("L", (9, 8), bytes(draw.randrange(120, 256) for _ in range(72)))
    bands = [
        pattern.point(lambda value, share=share: round(value * share)).resize(size, Image.Resampling.NEAREST)
        for share in _SHADES[colour]
    ]
    out = io.BytesIO()
    Image.merge("RGB", bands).save(out, kind)
    return out.getvalue()


def truncated(image: bytes) -> bytes:
    """Return a JPEG with a valid header and truncated image data."""
    return image[: image.index(b"\xff\xda") + 20]


def photo_id(number: int) -> str:
    """Return a photo id."""
    return f"{number:032x}"


def enveloped(number: int, image: bytes, device: str = "pi-1", **fields: object) -> bytes:
    """Return an encoded Photo."""
    message = Photo(photo_id=photo_id(number), node=NODE, device=device, image=image, **fields)  # type: ignore[arg-type]  # a test's own words
    return encode(PHOTO, message)


def sample(identifier: str = "0" * 32, image: bytes = b"\xff\xd8\x00\xfe", **fields: object) -> Sample:
    """Return a harvested sample, whose image is none by default."""
    facts: dict[str, object] = {
        "photo_id": identifier, "node": NODE, "device": "pi-1", "image": image, "width": 1, "height": 1,
        "dhash": "0" * 16, "lane": "auto", "label": "cat", "confidence": 1.0, "scores": {"cat": 1.0},
        "model": "pets", "model_version": 1, "harvested_at_ms": 1,
    }  # fmt: skip
    return Sample(**facts | fields)  # type: ignore[arg-type]  # a test's own words


class Observer:
    """Records the messages on the bus and publishes photos."""

    def __init__(self, address: Broker, *, node: str = NODE, durable: bool = False) -> None:
        self.bus = Bus(address, transient_client_id("observer"), durable=durable)
        self.node = node
        self.raw_results = self.bus.subscribe_raw(RESULT.filter, queue=4096)
        self.results: list[Result] = []
        self._final: dict[str, dict[str, Result]] = {}
        self._read_results = 0
        self.samples: list[Sample] = []
        self.receipts: list[Receipt] = []
        self.events: list[Event] = []
        self.statuses: list[Status] = []
        self._read = [
            self._reader(RESULT, self.results),
            self._reader(SAMPLE, self.samples),
            self._reader(RECEIPT, self.receipts),
            self._reader(EVENT, self.events),
            self._reader(STATUS, self.statuses),
        ]

    def _reader(self, topic: Topic[Message], received: list[Message]):
        subscription = self.bus.subscribe(topic, queue=4096)

        async def read() -> None:
            async for delivery in subscription:
                delivery.ack()
                try:
                    received.append(delivery.message())
                except CodecError:
                    continue

        return read

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Observer"]:
        """Run for the length of a block, entered when connected."""
        tasks = [asyncio.create_task(self.bus.run()), *(asyncio.create_task(read()) for read in self._read)]
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.bus.connected()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, payload: bytes, device: str = "pi-1") -> None:
        """Publish any bytes as a photo."""
        await self.bus.publish_bytes(PHOTO.name(node=self.node, device=device), payload)

    def final(self, device: str = "pi-1") -> dict[str, Result]:
        """Return the final results of a device so far, by photo id."""
        # Asked for again every few milliseconds: only what is new is read.
        for result in self.results[self._read_results :]:
            if result.status != "deferred":
                self._final.setdefault(result.device, {})[result.photo_id] = result
        self._read_results = len(self.results)
        return dict(self._final.get(device, {}))

    def forget_results(self) -> None:
        """Continue as if no result had arrived yet."""
        self.results.clear()
        self._final.clear()
        self._read_results = 0

    async def answer(self, identifier: str, device: str = "pi-1", *, within_s: float = DEADLINE_S) -> Result:
        """Wait for the final result of a photo, by its id."""
        await eventually(lambda: identifier in self.final(device), within_s=within_s)
        return self.final(device)[identifier]

    async def status(self, state: str, name: str = "edge", *, within_s: float = DEADLINE_S) -> Status:
        """Wait until the newest status of a handler has this state."""
        await eventually(lambda: self.newest(name).state == state, within_s=within_s)
        return self.newest(name)

    def newest(self, name: str = "edge") -> Status:
        """Return the newest status of a component; before the first, an offline one."""
        statuses = [status for status in self.statuses if status.name == name]
        return (
            statuses[-1]
            if statuses
            else Status(
                node=NODE, name=name, state="offline", at_ms=0, since_ms=0, software="none", run_id="none"
            )
        )


@asynccontextmanager
async def device(seen: Observer, folder: Path) -> AsyncIterator[Outbox]:
    """Yield an outbox that sends photos as a device agent does: again until the final result arrives."""

    async def settle(outbox: Outbox) -> None:
        for number in count():
            await eventually(lambda number=number: len(seen.results) > number, within_s=2 * DEADLINE_S)
            if (result := seen.results[number]).status != "deferred":
                await outbox.mark_answered(result.photo_id)

    async with Database(folder / "device.db", {"outbox": Outbox.MIGRATIONS}) as database:
        outbox = Outbox(database, QUICK, Counters(), name="photo")
        tasks = [
            asyncio.create_task(outbox.run(seen.bus.publish_bytes, seen.bus.connected)),
            asyncio.create_task(settle(outbox)),
        ]
        try:
            yield outbox
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def edge_config(address: Broker, serving: str, folder: Path, **changes: object) -> EdgeConfig:
    """Return the configuration of an edge under test; by default it harvests every photo."""
    facts: dict[str, object] = {
        "broker": address,
        "serving": serving,
        "state_dir": str(folder / "state"),
        "predict_timeout_s": 10.0,
        "harvest": HarvestRules(near_duplicate_s=0, audit_share=0),
        "outbox": QUICK,
    }
    return EdgeConfig(**(facts | changes))  # type: ignore[arg-type]  # a test's own words


@asynccontextmanager
async def station(config: EdgeConfig) -> AsyncIterator[Observer]:
    """Run an edge with an observer for the length of a block, entered when both work."""
    async with Observer(config.broker).watching() as seen, edge_running(config):
        await seen.status("online")
        yield seen


async def counted(seen: Observer, name: str = "edge") -> dict[str, int]:
    """Return the counters of a handler that ended."""
    return (await seen.status("offline", name)).counters


@asynccontextmanager
async def edge_running(config: EdgeConfig) -> AsyncIterator[None]:
    """Run the edge in this process for the length of a block; the test fails if it ends early."""
    task = asyncio.create_task(service.run(config))
    try:
        yield
        assert not task.done(), "the edge ended early"
    finally:
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(ended, asyncio.CancelledError | type(None)):
            raise ended


class Command:
    """A `gleaner` command as a process that a test may kill and restart."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._words = words
        self._log = folder / f"{words[0]}-{len(list(folder.glob('*.log')))}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr, in all its runs."""
        return self._log.read_text()

    def start(self, at: str | None = None) -> None:
        """Start it, without waiting; with `at`, it kills itself at that step of `tests.faults.crashing`."""
        launcher = ["cli.main"] if at is None else ["tests.faults.crashing", "--at", at]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *launcher, *self._words],
                cwd=ROOT,
                env=dict(os.environ),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self) -> int:
        """Wait until it ends and return its exit code."""
        assert self._process is not None
        code = self._process.wait(_END_S)
        self._process = None
        return code

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(_END_S)
        self._process = None
        return code

    def cpu_s(self) -> float:
        """Return its CPU time in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Return its resident memory in megabytes."""
        return self._memory_mb("VmRSS:")

    def peak_mb(self) -> float:
        """Return the most resident memory that it had in this run, in megabytes."""
        return self._memory_mb("VmHWM:")

    def _memory_mb(self, field: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError(f"no {field}")


@contextmanager
def edge_process(config: EdgeConfig, folder: Path) -> Iterator[Command]:
    """Yield `gleaner edge` as a process, not started; it ends with the block."""
    command = Command(folder, "edge", "--config", str(toml(config, folder / "edge.toml")))
    try:
        yield command
    finally:
        command.kill()


def toml(config: msgspec.Struct, path: Path) -> Path:
    """Write a configuration as a file for `--config`."""
    path.write_text("\n".join(_dotted(msgspec.to_builtins(config))), encoding="utf-8")
    return path


def _dotted(fields: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name} = {json.dumps(value)}"
