"""Measure the collector: samples per second by number of collectors, by table size and during compaction.

A sample counts when its receipt arrives, which is published after a durable commit. The reference is the
cheapest storage that is as durable: one synced file per photo.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import lance
import msgspec
import pyarrow as pa

from bench import procfs, wire
from bench.figures import Figure, percentiles
from bench.load import LoadResult, Request, closed_loop
from bench.photos import NODE, pictures
from bench.setting import Setting
from bench.table import Table
from bus.broker.process import BrokerProcess, local_broker
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from cloud.dataset.schema import SCHEMA
from cloud.dataset.store import Store
from demo.processes import Processes
from schemas.codec import encode
from schemas.messages import Receipt, Sample
from schemas.topics import CLOUD, RECEIPT, SAMPLE, STATUS

COST_OF_SMALL = "CPU-ms per sample of a small image"
MEMORY = "memory of the collector"
FILES = "a synced file each"
_READ_FILES = "folder of files"
_CONCURRENCY = 256
_WARMUP_S = 2.0
_START_S = 60.0
_SMALL_PX = (16, 16)
_SYNCED_FILES = 300


async def measure(setting: Setting) -> list[Figure]:
    """Measure collectors, table sizes, compaction and reading."""
    table = Table()
    repeats, seconds = (1, 2.0) if setting.quick else (2, 4.0)
    for repeat in range(repeats):
        folder = setting.folder / f"{repeat}"
        per_s = await asyncio.to_thread(_files_per_s, folder / "files", pictures(16))
        for count in (1, 2) if setting.quick else (1, 2, 4):
            table.add(f"samples/s, {_label(count)}", FILES, per_s)
            await _by_collectors(folder / f"collectors-{count}", count, seconds, table)
        await _compacting(folder / "compacting", seconds, table)
    for rows in [1_000, 10_000] if setting.quick else [1_000, 10_000, 100_000, 1_000_000]:
        if setting.left_s > _START_S:
            await by_rows(setting.folder / f"rows-{rows}", rows, seconds, repeats, table)
        else:
            setting.note(f"Not enough time for {rows} rows.")
    read = await _read(setting)
    collected = "samples/s by collectors"
    return [
        *[
            figure
            for count in (1, 2, 4)
            for figure in table.figures(
                f"samples/s, {_label(count)}", "samples/s", against=FILES, chart=collected, x=count
            )
        ],
        *table.figures("CPU-ms per sample", "ms"),
        *[
            figure
            for rows in (1_000, 10_000, 100_000, 1_000_000)
            for figure in table.figures(
                f"samples/s of small images at {rows} rows", "samples/s", chart="samples/s by rows", x=rows
            )
        ],
        *table.figures("samples/s beside a compaction", "samples/s", against="without"),
        *table.figures("p99 of receipts beside a compaction", "ms", against="without"),
        *read,
    ]


def _label(count: int) -> str:
    return "1 collector" if count == 1 else f"{count} collectors"


async def _by_collectors(folder: Path, count: int, seconds: float, table: Table) -> None:
    async with collecting(folder, [folder / "dataset.lance"] * count) as ((request,), pids):
        used: list[float] = []
        outcome = await closed_loop(
            request,
            pictures(64),
            at_once=_CONCURRENCY,
            seconds=seconds,
            warmup_s=_WARMUP_S,
            watch=lambda: used.append(sum(map(procfs.cpu_s, pids))),
        )
        table.add(f"samples/s, {_label(count)}", "Gleaner", outcome.per_s)
        spent_ms = 1000 * (used[1] - used[0])
        table.add("CPU-ms per sample", _label(count), spent_ms / max(1, len(outcome.latencies_s)))


async def by_rows(folder: Path, rows: int, seconds: float, repeats: int, table: Table) -> None:
    """Measure one collector on a table that has so many rows already."""
    await asyncio.to_thread(_fill, folder / "dataset.lance", rows)
    async with collecting(folder, [folder / "dataset.lance"]) as ((request,), (pid,)):
        for _repeat in range(repeats):
            used: list[float] = []
            outcome = await _run_load(request, seconds, partial(_note_cpu, pid, used))
            table.add(f"samples/s of small images at {rows} rows", "Gleaner", outcome.per_s)
            spent_ms = 1000 * (used[1] - used[0])
            table.add(COST_OF_SMALL, f"{rows} rows", spent_ms / max(1, len(outcome.latencies_s)))
            table.add(MEMORY, f"{rows} rows", procfs.resident_bytes(pid) / 1e6)


def _note_cpu(pid: int, used: list[float]) -> None:
    used.append(procfs.cpu_s(pid))


async def _compacting(folder: Path, seconds: float, table: Table) -> None:
    """Load a collector without and with continuous compaction."""
    async with collecting(folder, [folder / "dataset.lance"]) as ((request,), _):
        store = await asyncio.to_thread(Store.open, folder / "dataset.lance")
        for name in ("without", "with"):
            stop = asyncio.Event()
            compactions = asyncio.create_task(_compact(store, stop)) if name == "with" else None
            outcome = await _run_load(request, seconds)
            stop.set()
            if compactions is not None:
                await compactions
            table.add("samples/s beside a compaction", name, outcome.per_s)
            table.add("p99 of receipts beside a compaction", name, percentiles(outcome.latencies_s).p99)


async def _compact(store: Store, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.to_thread(store.table.compact)


async def _run_load(request: Request, seconds: float, watch: Callable[[], None] = lambda: None) -> LoadResult:
    photos = pictures(64, size_px=_SMALL_PX, grain_px=8)
    return await closed_loop(
        request, photos, at_once=_CONCURRENCY, seconds=seconds, warmup_s=_WARMUP_S, watch=watch
    )


@contextlib.asynccontextmanager
async def collecting(
    folder: Path, datasets: Sequence[str | Path]
) -> AsyncIterator[tuple[list[Request], list[int]]]:
    """Run a collector per item of `datasets`, those of one dataset on their own broker.

    Yields a function per broker that has a sample stored, and the process ids of the collectors.
    """
    async with contextlib.AsyncExitStack() as running:
        processes = await running.enter_async_context(Processes(folder / "logs"))
        requests, pids = list[Request](), list[int]()
        for dataset in dict.fromkeys(datasets):
            broker = running.enter_context(local_broker(folder / f"broker-{len(requests)}"))
            for _ in range(datasets.count(dataset)):
                name = f"collector-{len(pids) + 1}"
                await start_collector(processes, broker, name, dataset)
                pids.append(processes.pid(name))
            requests.append(await running.enter_async_context(asking(broker)))
        yield requests, pids


async def start_collector(
    processes: Processes, broker: BrokerProcess, name: str, dataset: str | Path
) -> None:
    """Start a collector and wait until it is online."""
    bus = Bus(Broker(port=broker.port), transient_client_id("bench"))
    statuses = bus.subscribe(STATUS, node=CLOUD, name=name)
    running = asyncio.create_task(bus.run(), name="bench.bus")
    options = ("--dataset", str(dataset), "--broker", f"127.0.0.1:{broker.port}")
    await processes.start(name, "cloud", "collect", "--name", name, *options)
    async with asyncio.timeout(_START_S):
        async for delivery in statuses:
            delivery.ack()
            if delivery.message().state == "online":
                break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def asking(broker: BrokerProcess) -> AsyncIterator[Request]:
    """Connect to a broker; yield a function that has a sample stored."""
    waiting: dict[str, asyncio.Future[None]] = {}

    def take(_topic: str, message: bytes) -> None:
        receipt = msgspec.json.decode(message, type=Receipt)
        if (answer := waiting.pop(receipt.photo_id, None)) is not None and not answer.done():
            answer.set_result(None)

    async def request(image: bytes) -> None:
        photo_id = secrets.token_hex(16)
        waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        connection.publish(SAMPLE.name(node=NODE), encode(SAMPLE, make_sample(photo_id, image)))
        await answer

    connection = await wire.connect(broker.port, "bench-edge", take)
    await connection.subscribe(RECEIPT.name(node=NODE))
    try:
        yield request
    finally:
        connection.close()


def make_sample(photo_id: str, image: bytes) -> Sample:
    """Return a sample as an edge sends it."""
    return Sample(
        photo_id=photo_id,
        node=NODE,
        device="camera",
        image=image,
        width=640,
        height=480,
        dhash=photo_id[:16],
        lane="audit",
        label="cat",
        confidence=0.6,
        scores={"cat": 0.6, "dog": 0.4},
        model="pets",
        model_version=1,
        embedding=bytes(4 * 1280),
        harvested_at_ms=1,
    )


def _fill(dataset: Path, rows: int) -> None:
    """Create a table of `rows` rows with small images, in full fragments."""
    Store.open(dataset)
    image = pictures(1, size_px=_SMALL_PX, grain_px=8)[0]
    step = 50_000
    for start in range(0, rows, step):
        count = min(step, rows - start)
        columns: dict[str, list[object]] = {
            "photo_id": [f"{number:032x}" for number in range(start, start + count)],
            "revision": [1] * count,
            "received_at_ms": [1] * count,
            "image": [image] * count,
            "width": [16] * count,
            "height": [16] * count,
            "split": ["stream"] * count,
            "origin": ["sample"] * count,
        }
        arrays = [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in SCHEMA
        ]
        lance.write_dataset(
            pa.table(arrays, schema=SCHEMA), str(dataset), mode="append", max_rows_per_file=2048
        )


def _files_per_s(folder: Path, images: list[bytes]) -> float:
    """Return how many photos per second are written as synced files, one after the other."""
    folder.mkdir(parents=True)
    started_at = time.perf_counter()
    for number in range(_SYNCED_FILES):
        descriptor = os.open(folder / f"{number}.jpg", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, images[number % len(images)])
        os.fsync(descriptor)
        os.close(descriptor)
    return _SYNCED_FILES / (time.perf_counter() - started_at)


async def _read(setting: Setting) -> list[Figure]:
    count, repeats = (512, 1) if setting.quick else (8192, 3)
    folder = setting.folder / "reading"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.reading", str(folder), str(count), str(repeats),
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    per_s: dict[str, list[float]] = json.loads(out.splitlines()[-1])
    return [
        Figure(
            name="photos/s into training",
            of=name,
            unit="photos/s",
            values=values,
            against=None if name == _READ_FILES else _READ_FILES,
        )
        for name, values in per_s.items()
    ]
