"""How much the edge handler does for a photo, in counts that a busy machine does not change.

The handler runs in this process under the profiler, with a real broker and a real model server; the photos
come from a process of their own: `python -m bench.counts PORT PHOTOS AT_ONCE`.
"""

import asyncio
import cProfile
import itertools
import sys
import sysconfig
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
_COMMITS, _TASKS, _HANDOVERS = "commits", "tasks", "handovers"


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done for a photo, on average.

    Args:
        calls: Of functions in the event loop's thread, by package; `built-in` ones are written in C.
        commits: Transactions of the database, each a sync of the disk.
        tasks: Of asyncio.
        handovers: Pieces of work given to a thread of the pool.
    """

    calls: dict[str, float]
    commits: float
    tasks: float
    handovers: float


async def count(config: EdgeConfig, photos: int, at_once: int = 1) -> Counts:
    """Run a handler and count while it answers photos.

    Args:
        config: Of a broker and a model server that run.
        photos: How many are counted.
        at_once: How many are under way: one after the other by default, so that no batch depends on timing.
    """
    running = asyncio.create_task(service.run(config), name="bench.handler")
    try:
        await _load(config.broker.port, _WARM_PHOTOS, at_once)
        profile, happened = cProfile.Profile(), Counter[str]()
        with _watched(happened):
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
        commits=happened[_COMMITS] / photos,
        tasks=happened[_TASKS] / photos,
        handovers=happened[_HANDOVERS] / photos,
    )


@contextmanager
def _watched(happened: Counter[str]) -> Iterator[None]:
    """Count transactions, tasks and work for threads while the block runs."""
    with ExitStack() as patches:
        for name, owner, method in (
            (_COMMITS, Database, "_commit"),
            (_TASKS, asyncio.BaseEventLoop, "create_task"),
            (_HANDOVERS, ThreadPoolExecutor, "submit"),
        ):
            counting = _counting(happened, name, getattr(owner, method))
            patches.enter_context(patch.object(owner, method, counting))
        yield


def _counting(happened: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*words: Any, **named: Any) -> Any:
        happened[name] += 1
        return function(*words, **named)

    return counted


async def _load(port: int, photos: int, at_once: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.counts", str(port), str(photos), str(at_once), cwd=ROOT
    )
    if await process.wait():
        raise RuntimeError(f"the load: expected to end well, got exit code {process.returncode}")


def _package(code: CodeType | str) -> str:
    """Return whose a function is."""
    if isinstance(code, str):
        return "built-in"
    path = Path(code.co_filename)
    if path.is_relative_to(_PACKAGES):
        return path.relative_to(_PACKAGES).parts[0]
    return path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else "python"


async def _send(port: int, photos: int, at_once: int) -> None:
    images = itertools.cycle(pictures(16))
    left = iter(range(photos))

    async def keep_asking() -> None:
        for _ in left:
            await ask(next(images))

    async with pipeline(port) as ask, asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(keep_asking())


if __name__ == "__main__":
    asyncio.run(_send(*map(int, sys.argv[1:4])))
