"""Compare the model server's runtimes: time to start, memory after 1000 photos, and CPU time per photo.

All serve the same version of EfficientNet-Lite0. LiteRT runs from a tree with the packages of its image and
none of this environment, so that nothing of TensorFlow can be loaded.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import models, procfs, stack
from bench.figures import Figure, Goal
from bench.footprint import tree
from bench.machine import ROOT
from bench.photos import pictures
from bench.setting import Setting
from bench.table import Table
from bus.broker.process import free_port, is_listening
from edge.serving.client import Predictor

TENSORFLOW, FLOAT32, INT8 = "TensorFlow", "LiteRT float32", "LiteRT int8"
_MODEL = "efficientnet-lite0+litert"
_PHOTOS = 1000
_AT_ONCE = 4
_START_S = 120.0
_START, _RESIDENT, _CPU, _RATE = "start to listening", "resident after 1000 photos", "CPU per photo", "photos"
_MOST_MB = 120.0
_MOST_START_S = 1.5
_FLAGS = {
    TENSORFLOW: ("--runtime=tensorflow",),
    FLOAT32: ("--runtime=litert", "--litert_variant=float32"),
    INT8: ("--runtime=litert", "--litert_variant=int8"),
}


async def _classify(address: str, photos: Sequence[bytes], count: int) -> None:
    """Classify photos, one per call, some calls at a time."""
    async with Predictor(address, models.MODEL) as predictor:
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:  # shared: each caller takes the next one
                await predictor.predict([photos[number % len(photos)]])

        async with asyncio.TaskGroup() as tasks:
            for caller in range(_AT_ONCE):
                tasks.create_task(work(), name=f"bench.caller-{caller}")


async def _measure(name: str, base: Path, root: Path, setting: Setting, table: Table) -> None:
    """Start a server, let it classify, and add its figures."""
    port, photos = free_port(), pictures(64)
    path = str(ROOT) if name == TENSORFLOW else f"{ROOT}{os.pathsep}{root}"
    words = [
        sys.executable,
        *(() if name == TENSORFLOW else ("-S",)),
        "-m",
        "edge.modelserver",
        *_FLAGS[name],
    ]
    words += [f"--port={port}", f"--model_name={models.MODEL}", f"--model_base_path={base}"]
    count = _PHOTOS // 5 if setting.quick else _PHOTOS
    started_s = time.monotonic()
    async with stack.program(words, {"PYTHONPATH": path}, setting.folder / "log") as pid:
        async with asyncio.timeout(_START_S):
            while not await asyncio.to_thread(is_listening, port):  # noqa: ASYNC110  # a port has no event
                await asyncio.sleep(0.01)
        table.add(_START, name, time.monotonic() - started_s)
        before_s, began_s = procfs.cpu_s(pid), time.monotonic()
        await _classify(f"127.0.0.1:{port}", photos, count)
        table.add(_CPU, name, 1000 * (procfs.cpu_s(pid) - before_s) / count)
        table.add(_RATE, name, count / (time.monotonic() - began_s))
        table.add(_RESIDENT, name, procfs.resident_bytes(pid) / 1e6)


async def measure(setting: Setting) -> list[Figure]:
    """Measure the runtimes in turns."""
    base, table, root = setting.folder / models.MODEL, Table(), await tree("litert")
    await models.place(_MODEL, base)
    for _ in range(1 if setting.quick else 5):
        for name in _FLAGS:
            await _measure(name, base, root, setting, table)
    setting.note(f"Photos of 640 x 480 pixels, one per call, {_AT_ONCE} calls at a time.")
    in_s, in_mb = ({name: Goal(most=most) for name in (FLOAT32, INT8)} for most in (_MOST_START_S, _MOST_MB))
    return [
        *table.figures(_START, "s", against=TENSORFLOW, goals=in_s),
        *table.figures(_RESIDENT, "MB", against=TENSORFLOW, goals=in_mb),
        *table.figures(_CPU, "ms", against=TENSORFLOW),
        *table.figures(_RATE, "photos/s", against=TENSORFLOW),
    ]
