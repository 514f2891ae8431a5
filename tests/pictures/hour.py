"""Measure a handler of 768 MiB with hostile pictures: `python -m tests.pictures.hour MINUTES`, as root.

Broker, model server and handler are processes, the handler in its own control group. Ten hostile devices
send mutated pictures, pictures at the limits, bombs and rubbish, each the next one half a second after the
answer; three calm ones do so with good photos, first alone for a tenth of the time.
"""

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from bench import stack
from bench.hostile import slow_jpeg
from bench.photos import NODE, payloads
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.errors import BrokerConnectionError
from schemas.codec import content_id
from schemas.image.png import EXIF_AT
from schemas.image.png_pixels import chunk_bytes
from schemas.image.signatures import PNG_SIGNATURE
from schemas.messages import Result
from schemas.topics import PHOTO, RESULT
from tests.faults.hostile import double_header, hidden_header, malformed, many_scans
from tests.pictures.mutations import mutated
from tests.pictures.odd import encoded, png, scene

MODEL = "efficientnet-lite0"
LIMIT_BYTES = 768 * 1024 * 1024
HOSTILE, CALM = 10, 3
_RESEND_S = 60.0
_PAUSE_S = 0.5
_ANSWER_S = 600.0
_REPORT_S = 60.0
_GROUPS = Path("/sys/fs/cgroup")
_SIDE = 3990


class MemoryGroup:
    """A control group with a limit of memory, of version 2 or 1."""

    def __init__(self, limit_bytes: int) -> None:
        self._unified = (_GROUPS / "cgroup.controllers").exists()
        self.path = _GROUPS / ("gleaner-hour" if self._unified else "memory/gleaner-hour")
        self.path.mkdir()
        limit = "memory.max" if self._unified else "memory.limit_in_bytes"
        (self.path / limit).write_text(str(limit_bytes), encoding="ascii")

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        (self.path / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def peak_mib(self) -> int:
        """Return the most memory that the group had, with the file cache on its account."""
        name = "memory.peak" if self._unified else "memory.max_usage_in_bytes"
        return int((self.path / name).read_text(encoding="ascii")) >> 20

    def kills(self) -> int:
        """Return how often the kernel killed a process of the group for lack of memory."""
        name = "memory.events" if self._unified else "memory.oom_control"
        lines = (self.path / name).read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        self.path.rmdir()


def at_the_limits(draw: random.Random) -> Iterator[bytes]:
    """Yield acceptable pictures that take most memory or time."""
    grain = Image.frombytes("RGB", (40, 40), draw.randbytes(4800)).resize((_SIDE, _SIDE))
    yield encoded(grain, quality=40)
    yield encoded(grain, quality=40, progressive=True)
    yield encoded(grain.convert("CMYK"), quality=40)
    yield encoded(grain.resize((20_000, 100)), quality=40)
    for colour, depth, samples in ((6, 16, 8), (2, 16, 6), (6, 8, 4), (0, 16, 2)):
        yield png(depth, colour, (b"\x00" + draw.randbytes(samples) * _SIDE) * _SIDE, (_SIDE, _SIDE))
    yield slow_jpeg(10)


def bombs(draw: random.Random) -> Iterator[bytes]:
    """Yield pictures that must be refused before they cost anything."""
    yield png(1, 0, bytes(30_000), (30_000, 30_000))
    yield double_header(draw)
    yield hidden_header(draw)
    yield many_scans(draw)
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        yield encoded(scene(), kind)


def own(image: bytes, draw: random.Random) -> bytes:
    """Return a picture with other bytes and the same pixels: a bare picture's id is a digest."""
    text = b"seed\x00" + draw.randbytes(8).hex().encode()
    if image.startswith(b"\xff\xd8"):
        return image[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + image[2:]
    if image.startswith(PNG_SIGNATURE):
        return image[:EXIF_AT] + chunk_bytes(b"tEXt", text) + image[EXIF_AT:]
    return image + text


def hostile_pictures(costly: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield pictures of all kinds without end: mutations, and every fourth time a costly one."""
    draw = random.Random(seed)
    for number, (_, image) in enumerate(mutated(seed)):
        yield image if number % 4 else own(draw.choice(costly), draw)


class Tally:
    """What was sent and answered, and how long calm devices waited."""

    def __init__(self) -> None:
        self.sent = Counter[str]()
        self.answers = Counter[str]()
        self.waited_ms: dict[str, list[float]] = {"quiet": [], "hostile": []}
        self.phase = "quiet"

    def report(self) -> dict[str, object]:
        """Return the figures so far."""
        waited = {
            phase: {f"p{at}": round(statistics.quantiles(times, n=100)[at - 1]) for at in (50, 90, 99)}
            for phase, times in self.waited_ms.items()
            if len(times) > 1
        }
        return {"sent": dict(self.sent), "answers": dict(self.answers), "calm_ms": waited}


class Sender:
    """A device that sends one photo after the other, each until its answer arrives.

    Args:
        bus: Its connection, not yet running.
        device: Its name.
    """

    def __init__(self, bus: Bus, device: str) -> None:
        self._bus = bus
        self._topic = PHOTO.name(node=NODE, device=device)
        self._results = bus.subscribe(RESULT, node=NODE, device=device)

    async def ask(self, payload: bytes, photo_id: str | None) -> Result | None:
        """Send a photo until its final answer, or any without `photo_id`; return None after ten minutes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                while True:
                    with contextlib.suppress(TimeoutError, BrokerConnectionError):
                        await self._bus.connected()
                        await self._bus.publish_bytes(self._topic, payload)
                        async with asyncio.timeout(_RESEND_S):
                            return await self._final(photo_id)
        return None

    async def _final(self, photo_id: str | None) -> Result:
        async for delivery in self._results:
            delivery.ack()
            result = delivery.message()
            if result.status != "deferred" and photo_id in {None, result.photo_id}:
                return result
        raise AssertionError("a subscription has no end")

    async def rubbish(self, payloads: Sequence[bytes]) -> None:
        """Send what is not a photo, without waiting for the answers."""
        with contextlib.suppress(BrokerConnectionError):
            for payload in payloads:
                await self._bus.publish_bytes(self._topic, payload)


async def attack(sender: Sender, costly: Sequence[bytes], seed: int, tally: Tally) -> None:
    """Send hostile pictures until cancelled."""
    draw = random.Random(seed)
    for number, image in enumerate(hostile_pictures(costly, seed)):
        if number % 100 == 0:
            rubbish = [payload for _, payload in malformed(draw)]
            tally.sent["rubbish"] += len(rubbish)
            await sender.rubbish(rubbish)
        tally.sent["hostile"] += 1
        result = await sender.ask(image, content_id(image))
        tally.answers["hostile: none" if result is None else f"hostile: {_word(result)}"] += 1
        await asyncio.sleep(_PAUSE_S)


def _word(result: Result) -> str:
    if result.status == "rejected":
        return result.code or "rejected"
    return "ok" if result.damaged is None else "damaged"


async def live(sender: Sender, device: str, tally: Tally) -> None:
    """Send good photos at intervals until cancelled, and note how long each waits."""
    for payload in payloads(device):
        began, phase = time.monotonic(), tally.phase
        tally.sent["calm"] += 1
        result = await sender.ask(payload, None)
        tally.answers["calm: none" if result is None else f"calm: {_word(result)}"] += 1
        if phase == tally.phase:
            tally.waited_ms[phase].append((time.monotonic() - began) * 1000)
        await asyncio.sleep(_PAUSE_S)


async def devices(port: int, work: Mapping[str, Callable[[Sender], Coroutine[None, None, None]]]) -> None:
    """Run devices until cancelled, each with its own connection."""
    buses = {name: Bus(Broker(port=port), transient_client_id(name)) for name in work}
    async with asyncio.TaskGroup() as tasks:
        for name, bus in buses.items():
            sender = Sender(bus, name)
            tasks.create_task(bus.run())
            tasks.create_task(work[name](sender))


async def attack_all(port: int) -> None:
    """Run the hostile devices, and print what they sent and got, until killed."""
    tally, draw = Tally(), random.Random(0)
    costly = [*at_the_limits(draw), *bombs(draw)]

    async def report() -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            print(json.dumps(tally.report()), flush=True)

    reporting = asyncio.create_task(report())
    names = {f"hostile-{seed}": seed for seed in range(HOSTILE)}
    await devices(
        port, {name: partial(attack, costly=costly, seed=seed, tally=tally) for name, seed in names.items()}
    )
    reporting.cancel()


async def measure(minutes: float, folder: Path, group: MemoryGroup) -> None:
    """Run everything, and print the figures every minute."""
    tally = Tally()
    async with stack.served(folder, MODEL) as running, asyncio.TaskGroup() as tasks:
        handler = asyncio.create_task(stack.add_handler(running, folder))
        while "handler" not in running.pids:  # noqa: ASYNC110  # before it has allocated anything
            await asyncio.sleep(0)
        group.add(running.pids["handler"])
        await handler
        port, began, attackers = running.broker.port, time.monotonic(), None
        calm = {
            f"calm-{number}": partial(live, device=f"calm-{number}", tally=tally) for number in range(CALM)
        }
        working = tasks.create_task(devices(port, calm))
        while (passed := time.monotonic() - began) < minutes * 60:
            if attackers is None and passed > minutes * 6:
                # A separate process: making its pictures takes seconds, in which calm devices would wait.
                words = ("-m", "tests.pictures.hour", "--attack", str(port))
                attackers = await asyncio.create_subprocess_exec(sys.executable, *words)
                tally.phase = "hostile"
            await asyncio.sleep(min(_REPORT_S, minutes * 6))
            running.processes.check()  # the handler, too, must not have ended
            memory = {"peak_mib": group.peak_mib(), "killed": group.kills()}
            print(json.dumps({"minutes": round(passed / 60, 1), **memory, **tally.report()}), flush=True)
        working.cancel()
        if attackers is not None:
            attackers.kill()
            await attackers.wait()


def main(words: Sequence[str]) -> None:
    """Measure for some minutes, or attack."""
    if words[0] == "--attack":
        asyncio.run(attack_all(int(words[1])))
        return
    group = MemoryGroup(LIMIT_BYTES)
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(float(words[0]), Path(folder), group))
    finally:
        group.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
