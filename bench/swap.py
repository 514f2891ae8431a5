"""Measure latencies and failures during model swaps, compared with a constant version.

Each new version is the same SavedModel under the next number, installed in the folder that the model server
polls, so that loading is the only additional work.
"""

import asyncio
import contextlib
import shutil
from pathlib import Path

from bench import models, stack
from bench.contestants import pipeline
from bench.figures import Figure, Goal, percentiles
from bench.load import LoadResult, arrivals, closed_loop, open_loop
from bench.photos import pictures
from bench.setting import Setting
from bench.table import Table
from edge.serving.client import Predictor

SWAPPING, STEADY = "with swaps", "without"
_MODEL = "efficientnet-lite0"
_LOAD = 0.5
_VERSIONS_KEPT = 2
_TIMEOUT_S = 30.0
_WARMUP_S = 2.0
_START_S = 30.0
_PAUSE_S = 1.0


async def _swap(running: stack.Stack, newest: int, stop: asyncio.Event) -> int:
    """Install one version after the other, each when the previous one is served; return the newest."""
    async with Predictor(running.serving, models.MODEL) as predictor:
        while not stop.is_set():
            newest += 1
            await models.place(_MODEL, running.base, newest)
            while (await predictor.model_status(newest)).state != "available":  # noqa: ASYNC110  # the server has no notification
                await asyncio.sleep(0.1)
            # Old versions are removed, as the edge does; otherwise the disk would fill.
            await asyncio.to_thread(_remove_version, running.base, newest - _VERSIONS_KEPT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_S):
                    await stop.wait()
    return newest


def _remove_version(base: Path, version: int) -> None:
    shutil.rmtree(base / str(version), ignore_errors=True)


async def measure(setting: Setting) -> list[Figure]:
    """Measure the pipeline at half its throughput, with and without swaps."""
    repeats = 1 if setting.quick else 2
    seconds = 12.0 if setting.quick else max(30.0, (setting.seconds - _START_S) / repeats / 2)
    table, photos, newest = Table(), pictures(64), 1
    async with stack.served(setting.folder, _MODEL) as running:
        await stack.add_handler(running, setting.folder)
        async with pipeline(running.broker.port) as request:
            limit = await closed_loop(request, photos, at_once=64, seconds=4 * _WARMUP_S, warmup_s=_WARMUP_S)
            for repeat in range(repeats):
                due_s = arrivals(max(1.0, _LOAD * limit.per_s), seconds, seed=repeat)
                _add(table, STEADY, await open_loop(request, photos, due_s, _TIMEOUT_S))
                stop = asyncio.Event()
                swapping = asyncio.create_task(_swap(running, newest, stop), name="bench.swap")
                _add(table, SWAPPING, await open_loop(request, photos, due_s, _TIMEOUT_S))
                stop.set()
                before, newest = newest, await swapping
                table.add("swaps", SWAPPING, newest - before)
    setting.note(f"At {_LOAD:.0%} of the throughput; a swap starts {_PAUSE_S:g} s after the previous one.")
    return [
        *table.figures("p50", "ms", against=STEADY),
        *table.figures("p99", "ms", against=STEADY, goals={SWAPPING: Goal(of="ratio", most=2.0)}),
        *table.figures("photos without an answer", "photos", goals={SWAPPING: Goal(most=0)}),
        *table.figures("photos answered", "photos"),
        *table.figures("swaps", ""),
    ]


def _add(table: Table, name: str, outcome: LoadResult) -> None:
    latencies = percentiles(outcome.latencies_s)
    table.add("p50", name, latencies.p50)
    table.add("p99", name, latencies.p99)
    table.add("photos without an answer", name, outcome.failed)
    table.add("photos answered", name, len(outcome.latencies_s))
