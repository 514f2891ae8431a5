"""Count the work of the edge handler per photo; unlike times, counts do not depend on other load.

The handler runs in this process under cProfile, with a real broker and a real model server. The photos come
from another process: `python -m bench.counts PORT PHOTOS AT_ONCE`.
"""

import asyncio
import cProfile
import itertools
import sys
import sysconfig
from asyncio.selector_events import BaseSelectorEventLoop
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

from bench.contestants import pipeline
from bench.machine import ROOT
from bench.photos import pictures
from bus.outbox.sqlite import Database
from edge import service
from edge.config import EdgeConfig

_PACKAGES = Path(sysconfig.get_paths()["purelib"])
_WARM_PHOTOS = 20
_COMMITS, _TASKS, _HANDOVERS, _WAKE_UPS = "commits", "tasks", "handovers", "wake-ups"


@dataclass(frozen=True, slots=True)
class Counts:
    """Work per photo, on average.

    Args:
        calls: Function calls in the thread of the event loop, by package; `built-in` ones are written in C.
        commits: Database transactions, each with one sync of the disk.
        tasks: Created asyncio tasks.
        handovers: Jobs for the thread pool.
        wake_ups: Wake-ups of the event loop through its own socket, by other threads or by this one.
    """

    calls: dict[str, float]
    commits: float
    tasks: float
    handovers: float
    wake_ups: float


async def count(config: EdgeConfig, photos: int, at_once: int = 1) -> Counts:
    """Run a handler and count its work while it classifies photos.

    Args:
        config: Configuration with a running broker and model server.
        photos: Number of photos that are counted.
        at_once: Photos in flight; by default one, so that batches do not depend on timing.
    """
    running = asyncio.create_task(service.run(config), name="bench.handler")
    try:
        # Connections, caches and lazy imports are not part of the cost of a photo.
        await _load(config.broker.port, _WARM_PHOTOS, at_once)
        profile, counts = cProfile.Profile(), Counter[str]()
        with _patched_counters(counts):
            profile.enable()
            await _load(config.broker.port, photos, at_once)
            profile.disable()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    calls = Counter[str]()
    for entry in profile.getstats():
        calls[_package(entry.code)] += entry.callcount
    return Counts(
        calls={package: number / photos for package, number in calls.most_common()},
        commits=counts[_COMMITS] / photos,
        tasks=counts[_TASKS] / photos,
        handovers=counts[_HANDOVERS] / photos,
        wake_ups=counts[_WAKE_UPS] / photos,
    )


@contextmanager
def _patched_counters(counts: Counter[str]) -> Iterator[None]:
    """Count transactions, tasks and jobs for threads during the block."""
    with ExitStack() as patches:
        for name, owner, method in (
            (_COMMITS, Database, "_commit"),
            (_TASKS, asyncio.BaseEventLoop, "create_task"),
            (_HANDOVERS, ThreadPoolExecutor, "submit"),
            (_WAKE_UPS, BaseSelectorEventLoop, "_write_to_self"),
        ):
            counting = _counting_wrapper(counts, name, getattr(owner, method))
            patches.enter_context(patch.object(owner, method, counting))
        yield


def _counting_wrapper(counts: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*words: Any, **named: Any) -> Any:
        counts[name] += 1
        return function(*words, **named)

    return counted


async def _load(port: int, photos: int, at_once: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.counts", str(port), str(photos), str(at_once), cwd=ROOT
    )
    if await process.wait():
        raise RuntimeError(f"the load process failed with exit code {process.returncode}")


def _package(code: CodeType | str) -> str:
    """Return the package of a function."""
    if isinstance(code, str):
        return "built-in"
    path = Path(code.co_filename)
    if path.is_relative_to(_PACKAGES):
        return path.relative_to(_PACKAGES).parts[0]
    return path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else "python"


async def _send(port: int, photos: int, at_once: int) -> None:
    images = itertools.cycle(pictures(16))
    left = iter(range(photos))

    async def send_repeatedly() -> None:
        for _ in left:
            await request(next(images))

    async with pipeline(port) as request, asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(send_repeatedly())


if __name__ == "__main__":
    asyncio.run(_send(*map(int, sys.argv[1:4])))
