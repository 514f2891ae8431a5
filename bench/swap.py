"""What a photo notices of a model swap: latencies and failures while versions change, against none changing.

Each new version is the same SavedModel under the next number, put into the folder that the model server
watches, so that loading it is the only work that is added.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from bench import models, stack
from bench.contestants import pipeline
from bench.figures import Figure, Goal, percentiles
from bench.load import Outcome, arrivals, closed_loop, open_loop
from bench.photos import pictures
from bench.setting import Setting
from bench.table import Table
from edge.tfserving import Predictor

SWAPPING, STEADY = "with swaps", "without"
_LOAD = 0.5
_SWAPS = 20
_KEPT = 2
_PATIENCE_S = 30.0
_SETTLE_S = 2.0


async def _swap(running: stack.Stack, first: int, swaps: int, every_s: float) -> None:
    """Put one version after the other in place, each when the one before serves and its time has come."""
    loop = asyncio.get_running_loop()
    async with Predictor(running.serving, models.MODEL) as predictor:
        for number in range(first, first + swaps):
            next_at = loop.time() + every_s
            await models.place(_MODEL, running.base, number)
            while (await predictor.served(number)).state != "available":  # noqa: ASYNC110  # it has to be asked
                await asyncio.sleep(0.1)
            await asyncio.to_thread(_forget, running.base, number - _KEPT)
            await asyncio.sleep(max(0.0, next_at - loop.time()))


def _forget(base: Path, version: int) -> None:
    shutil.rmtree(base / str(version), ignore_errors=True)


@contextlib.asynccontextmanager
async def _swapping(running: stack.Stack, first: int, swaps: int, every_s: float) -> AsyncIterator[None]:
    """Swap during the block, and to the end of it."""
    task = asyncio.create_task(_swap(running, first, swaps, every_s), name="bench.swap")
    yield
    await task


_MODEL = "efficientnet-lite0"


async def measure(setting: Setting) -> list[Figure]:
    """Measure the pipeline at half its load, with and without swaps."""
    repeats, swaps = (1, 2) if setting.quick else (2, _SWAPS // 2)
    seconds = 12.0 if setting.quick else max(20.0, (setting.seconds / repeats - 25) / 2)
    table, photos = Table(), pictures(64)
    async with stack.served(setting.folder, _MODEL) as running:
        await stack.add_handler(running, setting.folder)
        async with pipeline(running.broker.port) as ask:
            limit = await closed_loop(ask, photos, at_once=64, seconds=4 * _SETTLE_S, settle_s=_SETTLE_S)
            for repeat in range(repeats):
                due_s = arrivals(max(1.0, _LOAD * limit.per_s), seconds, seed=repeat)
                steady = await open_loop(ask, photos, due_s, _PATIENCE_S)
                _add(table, STEADY, steady)
                async with _swapping(running, 2 + repeat * swaps, swaps, seconds / swaps):
                    swapped = await open_loop(ask, photos, due_s, _PATIENCE_S)
                _add(table, SWAPPING, swapped)
    setting.note(f"{swaps * repeats} swaps in all, at {_LOAD:.0%} of what the pipeline takes.")
    unanswered = {SWAPPING: Goal(most=0)}
    return [
        *table.figures("p50", "ms", against=STEADY),
        *table.figures("p99", "ms", against=STEADY, goals={SWAPPING: Goal(of="ratio", most=2.0)}),
        *table.figures("photos without an answer", "photos", goals=unanswered),
        *table.figures("photos answered", "photos"),
    ]


def _add(table: Table, name: str, outcome: Outcome) -> None:
    latencies = percentiles(outcome.latencies_s)
    table.add("p50", name, latencies.p50)
    table.add("p99", name, latencies.p99)
    table.add("photos without an answer", name, outcome.failed)
    table.add("photos answered", name, len(outcome.latencies_s))
