"""Measure throughput and latency from publication to result, compared with the limit and other servers.

The limit is a bare loop that calls the same model server with the same batches. The rates of the open loop
are fractions of it, so that every contestant gets the same photos at the same times.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import models, procfs, stack
from bench.contestants import BATCH, bare_loop, pipeline
from bench.figures import Figure, Goal, percentiles
from bench.load import Request, arrivals, closed_loop, open_loop
from bench.photos import NODE, pictures
from bench.rival import RIVALS, Rival, answering, rival
from bench.setting import Setting
from bench.table import Table

OURS, LIMIT = "Gleaner", "bare loop"
SATURATED, PER_PHOTO = "photos/s at saturation", "CPU-ms per photo"
_LOADS = (25, 50, 75, 90)
_GOAL_LOAD = 50
_GOALS_MS = {"p50": 3.0, "p99": 10.0}
_CONCURRENCY = 6 * BATCH
_TIMEOUT_S = 30.0
_WARMUP_S = 3.0
_START_S = 12.0
_PHOTOS = 64
_REPEATS, _RIVAL_REPEATS = 3, 2


@dataclass(frozen=True, slots=True)
class Contest:
    """Measure contestants with the same model, one after the other.

    Args:
        setting: Folders and time.
        model: Name of the model.
        seconds: Duration of each load.
        repeats: Number of repeats.
        loads: Loads in per cent of the limit.
        handler: Fields of the configuration of the handler.
    """

    setting: Setting
    model: str
    seconds: float
    repeats: int
    loads: tuple[int, ...]
    photos: list[bytes] = field(default_factory=lambda: pictures(_PHOTOS))
    table: Table = field(default_factory=Table)
    handler: Mapping[str, object] = field(default_factory=dict)

    async def run(self, rivals: tuple[Rival, ...] = ()) -> None:
        """Measure all; the pipeline and the limit share a model server, a rival loads the model itself."""
        for repeat in range(self.repeats):
            folder = self.setting.folder / f"{self.model}-{repeat}"
            async with self._ours(folder) as (pids, asks):
                for name, request in asks.items():
                    await self._saturate(name, request, pids)
                # Of the first repeat: loads of all repeats are then the same and can be compared.
                limit_per_s = self.table.values[SATURATED, LIMIT][0]
                for name, request in asks.items():
                    await self._load(name, request, limit_per_s, repeat)
            for chosen in rivals if repeat < _RIVAL_REPEATS else ():
                async with rival(chosen, await models.saved_model(self.model), folder) as (request, pid):
                    await answering(request, self.photos[0])
                    await self._saturate(chosen.name, request, {chosen.name: pid})
                    await self._load(chosen.name, request, limit_per_s, repeat)

    @contextlib.asynccontextmanager
    async def _ours(self, folder: Path) -> AsyncIterator[tuple[dict[str, int], dict[str, Request]]]:
        async with stack.served(folder, self.model) as running:
            await stack.add_handler(running, folder, "handler", node=NODE, **self.handler)
            async with (
                pipeline(running.broker.port) as ours,
                bare_loop(running.serving, models.MODEL) as limit,
            ):
                yield running.pids, {LIMIT: limit, OURS: ours}

    async def _saturate(self, name: str, request: Request, pids: dict[str, int]) -> None:
        used: list[dict[str, float]] = []

        def watch() -> None:
            used.append({part: procfs.cpu_s(pid) for part, pid in pids.items()})

        outcome = await closed_loop(
            request, self.photos, at_once=_CONCURRENCY, seconds=self.seconds, warmup_s=_WARMUP_S, watch=watch
        )
        self.table.add(SATURATED, name, max(1.0, outcome.per_s))
        before, after = used
        for part in pids if name != LIMIT else (stack.MODEL_SERVER,):
            label = part if part == name else f"{name}, {part}"
            spent_ms = 1000 * (after[part] - before[part])
            self.table.add(PER_PHOTO, label, spent_ms / max(1, len(outcome.latencies_s)))

    async def _load(self, name: str, request: Request, limit_per_s: float, repeat: int) -> None:
        for load in self.loads:
            due_s = arrivals(limit_per_s * load / 100, self.seconds, seed=repeat)
            outcome = await open_loop(request, self.photos, due_s, _TIMEOUT_S)
            for at, value in percentiles(outcome.latencies_s)._asdict().items():
                self.table.add(f"{at} at {load} %", name, value)
            self.table.add(f"unanswered at {load} %", name, outcome.failed)


def figures(contest: Contest, *, goals: bool = True) -> list[Figure]:
    """Return the figures of a contest, with the goals for a real model."""
    saturated = {OURS: Goal(of="ratio", least=0.97)} if goals else None
    made = contest.table.figures(SATURATED, "photos/s", against=LIMIT, goals=saturated)
    for load in contest.loads:
        for at in ("p50", "p95", "p99"):
            most_ms = _GOALS_MS.get(at) if goals and load == _GOAL_LOAD else None
            made += contest.table.figures(
                f"{at} at {load} %",
                "ms",
                against=LIMIT,
                chart=f"{at} by load, % of the limit",
                x=load,
                goals=None if most_ms is None else {OURS: Goal(of="difference", most=most_ms)},
            )
        made += contest.table.figures(f"unanswered at {load} %", "photos")
    return made + contest.table.figures(PER_PHOTO, "ms")


async def measure(setting: Setting) -> list[Figure]:
    """Measure the pipeline with a real model."""
    repeats, loads = (1, (_GOAL_LOAD,)) if setting.quick else (_REPEATS, _LOADS)
    each_s = setting.seconds / (2 * _REPEATS + len(RIVALS) * _RIVAL_REPEATS) - _START_S
    seconds = 2.0 if setting.quick else max(4.0, each_s / (1 + len(loads)))
    contest = Contest(setting, "efficientnet-lite0", seconds, repeats, loads)
    await contest.run(RIVALS)
    return figures(contest)
