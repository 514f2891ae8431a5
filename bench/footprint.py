"""Measure each side: installed size, time to start, resident memory and processor time per photo.

Each side runs from a separate tree with the packages of its image and none of this environment. The reference
is a process that only connects with the same MQTT library.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from bench import procfs, stack
from bench.figures import Figure, Goal
from bench.machine import ROOT
from bench.photos import NODE, pictures
from bench.setting import CACHE, Setting
from bench.table import Table
from bus.broker.process import free_port, local_broker
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from schemas.codec import encode
from schemas.messages import Status
from schemas.topics import CLOUD, RESULT, STATUS

BARE = "aiomqtt alone"
_INSTALLED, _START, _START_CPU = "installed", "from start to online", "CPU to start"
_RESIDENT, _PER_PHOTO = "resident", "CPU-ms per photo"
_GOALS_MB = {"device": 40.0, "edge": 80.0}
_GOALS_S = {"device": 0.5, "edge": 1.0}
_INSTALL_S = 900.0
_ONLINE_S = 60.0
_WARMUP_S = 1.0
_INTERVAL_S = 0.05
_BARE = """
import asyncio, sys, aiomqtt
async def main():
    async with aiomqtt.Client("127.0.0.1", int(sys.argv[1])) as client:
        await client.publish(sys.argv[2], sys.argv[3].encode(), qos=1)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def tree(side: str) -> Path:
    """Return the folder with the installed packages of a side; it is cached until the pins change."""
    pins = await asyncio.to_thread((ROOT / f"constraints/{side}.txt").read_bytes)
    folder = CACHE / "trees" / f"{side}-{sha256(pins).hexdigest()[:12]}"
    if not await asyncio.to_thread(folder.exists):
        partial = folder.with_name(f"tmp-{folder.name}")
        words = ("sh", "deploy/images/tree.sh", side, str(partial))
        environment = os.environ | {"PYTHON": sys.executable}
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=environment)
        async with asyncio.timeout(_INSTALL_S):
            if await process.wait():
                raise RuntimeError(f"cannot install the side {side}: exit code {process.returncode}")
        await asyncio.to_thread(partial.rename, folder)
    return folder


def size_bytes(folder: Path) -> int:
    """Return the total size of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


Words = Callable[[int, Path], tuple[str, ...]]
"""Function of the broker's port and a folder that returns the arguments of Python."""


def _bare(port: int, _folder: Path) -> tuple[str, ...]:
    status = Status(node=NODE, name="bare", state="online", at_ms=0, since_ms=0, software="-", run_id="-")
    return "-c", _BARE, str(port), STATUS.name(node=NODE, name="bare"), encode(STATUS, status).decode()


def _device(port: int, folder: Path, interval_s: float = 0.0) -> tuple[str, ...]:
    photos = folder / "photos/cat"
    photos.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pictures(32)):
        (photos / f"{number}.jpg").write_bytes(image)
    camera = ("--camera", f"folder:{photos.parent}?loop=1", "--interval", str(interval_s))
    return _command(port, "device", *camera, "--state-dir", str(folder / "device"))


def _edge(port: int, folder: Path) -> tuple[str, ...]:
    serving = ("--serving", f"127.0.0.1:{free_port()}")
    return _command(port, "edge", *serving, "--state-dir", str(folder / "edge"))


def _gateway(port: int, _folder: Path) -> tuple[str, ...]:
    return _command(port, "gateway", "--listen", f"127.0.0.1:{free_port()}")


def _collector(port: int, folder: Path) -> tuple[str, ...]:
    return _command(port, "cloud", "collect", "--dataset", str(folder / "dataset.lance"))


def _command(port: int, *words: str) -> tuple[str, ...]:
    return "-P", "-m", "gleaner", *words, "--broker", f"127.0.0.1:{port}"


class Side(NamedTuple):
    """A part of Gleaner that is installed separately.

    Args:
        node: Node in its status topic.
        name: Name in its status topic.
        words: Returns the arguments that start it.
    """

    node: str
    name: str
    words: Words


_SIDES = {
    "device": Side(NODE, "pi-1", _device),
    "edge": Side(NODE, "edge", _edge),
    "gateway": Side(CLOUD, "gateway", _gateway),
    "cloud": Side(CLOUD, "collector", _collector),
}


@contextlib.asynccontextmanager
async def _online(side: Side, port: int) -> AsyncIterator[asyncio.Task[None]]:
    """Yield a task that ends when the status is online."""
    bus = Bus(Broker(port=port), transient_client_id("bench"))
    statuses = bus.subscribe(STATUS, node=side.node, name=side.name)

    async def watch() -> None:
        async for delivery in statuses:
            delivery.ack()
            if delivery.message().state != "offline":
                return

    running = asyncio.create_task(bus.run(), name="bench.bus")
    watching = asyncio.create_task(watch(), name="bench.online")
    try:
        await bus.connected()
        yield watching
    finally:
        for task in (watching, running):
            task.cancel()
        await asyncio.gather(watching, running, return_exceptions=True)


async def _start(name: str, side: Side, root: Path, folder: Path, table: Table) -> None:
    """Start a side, and measure until it is online, and its memory a little later."""
    with local_broker(folder / "broker") as broker:
        words = await asyncio.to_thread(side.words, broker.port, folder)
        async with _online(side, broker.port) as online:
            started_at = time.monotonic()
            async with _running(words, root, folder) as pid:
                async with asyncio.timeout(_ONLINE_S):
                    await online
                table.add(_START, name, time.monotonic() - started_at)
                table.add(_START_CPU, name, procfs.cpu_s(pid))
                await asyncio.sleep(_WARMUP_S)
                table.add(_RESIDENT, name, procfs.resident_bytes(pid) / 1e6)


def _running(words: tuple[str, ...], root: Path, folder: Path) -> contextlib.AbstractAsyncContextManager[int]:
    """Run Python with this checkout and a tree only."""
    # With -S below, no site-packages are added: a missing package of the tree shows as an error.
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{root}"}
    return stack.program((sys.executable, "-S", *words), environment, folder / "log")


async def _send(root: Path, folder: Path, seconds: float) -> float:
    """Let a device take 20 photos per second, and return its CPU milliseconds per photo."""
    async with stack.served(folder, "null") as running:
        await stack.add_handler(running, folder)
        bus = Bus(Broker(port=running.broker.port), transient_client_id("bench"))
        results = bus.subscribe(RESULT, node=NODE)
        count = 0

        async def watch() -> None:
            nonlocal count
            async for delivery in results:
                delivery.ack()
                count += 1

        tasks = [asyncio.create_task(work) for work in (bus.run(), watch())]
        await bus.connected()
        words = await asyncio.to_thread(_device, running.broker.port, folder, _INTERVAL_S)
        async with _running(words, root, folder) as pid:
            await asyncio.sleep(2 * _WARMUP_S)
            before_s, counted = procfs.cpu_s(pid), count
            await asyncio.sleep(seconds)
            spent_s, photos = procfs.cpu_s(pid) - before_s, count - counted
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 1000 * spent_s / max(1, photos)


async def measure(setting: Setting) -> list[Figure]:
    """Measure each side."""
    table = Table()
    trees = {name: await tree(name) for name in _SIDES}
    for name, root in trees.items():
        table.add(_INSTALLED, name, await asyncio.to_thread(size_bytes, root) / 1e6)
    sides = {BARE: Side(NODE, "bare", _bare)} | _SIDES
    for repeat in range(1 if setting.quick else 5):
        for name, side in sides.items():
            root = trees.get(name, trees["device"])
            await _start(name, side, root, setting.folder / f"{side.name}-{repeat}", table)
    for repeat in range(1 if setting.quick else 3):
        seconds = 3.0 if setting.quick else 10.0
        spent_ms = await _send(trees["device"], setting.folder / f"send-{repeat}", seconds)
        table.add(_PER_PHOTO, "device", spent_ms)
    in_s = {name: Goal(most=most) for name, most in _GOALS_S.items()}
    in_mb = {name: Goal(most=most) for name, most in _GOALS_MB.items()}
    return [
        *table.figures(_INSTALLED, "MB"),
        *table.figures(_START, "s", against=BARE, goals=in_s),
        *table.figures(_START_CPU, "s", against=BARE),
        *table.figures(_RESIDENT, "MB", against=BARE, goals=in_mb),
        *table.figures(_PER_PHOTO, "ms"),
    ]
