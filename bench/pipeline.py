"""Measure throughput and latency from publication to result, compared with the limit and other servers.

The limit is a bare loop that calls the same model server with the same batches. The rates of the open loop
are fractions of it, so that every contestant gets the same photos at the same times.
"""

import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench import models, procfs, stack
from bench.contestants import BATCH, bare_loop, pipeline
from bench.figures import Figure, Goal, percentiles
from bench.load import Request, arrivals, closed_loop, open_loop
from bench.photos import pictures
from bench.rival import RIVALS, Rival, answering, rival
from bench.setting import Setting
from bench.table import Table
from bench.ways import HARVESTED, NOTE, WAYS, Way

LIMIT = "bare loop"
SATURATED, PER_PHOTO = "photos/s at saturation", "CPU-ms per photo"
_SHARE = "CPU of broker and handler, as a part of the model's"
_MODEL = "efficientnet-lite0+litert"
_LITERT = ", LiteRT"
_LOADS = (25, 50, 75, 90)
_GOAL_LOADS = (25, 50, 75)
_GOALS_MS = {"p50": 3.0, "p95": 6.0, "p99": 10.0}
_GOAL_SHARE = 0.03
_GOAL_RATIO = 1.5
_CONCURRENCY = 6 * BATCH
_TIMEOUT_S = 30.0
_WARMUP_S = 3.0
_START_S = 12.0
_PHOTOS = 64
_REPEATS, _RIVAL_REPEATS = 3, 2


class Server(NamedTuple):
    """A model server with the bare loop and handlers that share it.

    Args:
        suffix: To the names of its contestants.
        flags: Of the model server.
        ways: Of the handlers.
        limit: Whether the bare loop calls it too.
    """

    suffix: str = ""
    flags: tuple[str, ...] = ("--runtime=tensorflow",)
    ways: tuple[Way, ...] = WAYS
    limit: bool = True


LITERT = Server(_LITERT, ("--runtime=litert", "--litert_variant=float32"), (HARVESTED,))
INT8 = Server(f"{_LITERT} int8", ("--runtime=litert", "--litert_variant=int8"), (HARVESTED,), limit=False)


@dataclass(frozen=True, slots=True)
class Contest:
    """Measure contestants with the same model, one after the other.

    Args:
        setting: Folders and time.
        model: Name of the model.
        seconds: Duration of each load.
        repeats: Number of repeats.
        loads: Loads in per cent of the limit.
        per_s: A load in photos a second, in addition; 0 for none.
    """

    setting: Setting
    model: str
    seconds: float
    repeats: int
    loads: tuple[int, ...]
    per_s: float = 0.0
    photos: list[bytes] = field(default_factory=lambda: pictures(_PHOTOS))
    table: Table = field(default_factory=Table)

    async def run(self, servers: tuple[Server, ...] = (Server(),), rivals: tuple[Rival, ...] = ()) -> None:
        """Measure all; the handlers and the limit share a model server, a rival loads the model itself."""
        for repeat in range(self.repeats):
            for number, server in enumerate(servers):
                folder = self.setting.folder / f"{self.model}-{repeat}-{number}"
                async with self._ours(folder, server) as (pids, asks):
                    for name, request in asks.items():
                        await self._saturate(name, request, _of(name, pids))
                    for name, request in asks.items():
                        await self._load(name, request, _of(name, pids), repeat)
            for chosen in rivals if repeat < _RIVAL_REPEATS else ():
                folder = self.setting.folder / f"{chosen.name}-{repeat}"
                folder.mkdir()
                async with rival(chosen, await models.saved_model(self.model), folder) as (request, pid):
                    await answering(request, self.photos[0])
                    await self._saturate(chosen.name, request, {chosen.name: pid})
                    await self._load(chosen.name, request, {}, repeat)

    @contextlib.asynccontextmanager
    async def _ours(
        self, folder: Path, server: Server
    ) -> AsyncIterator[tuple[dict[str, int], dict[str, Request]]]:
        async with (
            stack.served(folder, self.model, *server.flags) as running,
            contextlib.AsyncExitStack() as opened,
        ):
            asks = dict[str, Request]()
            if server.limit:
                limit = await opened.enter_async_context(bare_loop(running.serving, models.MODEL))
                asks[LIMIT + server.suffix] = limit
            for way in server.ways:
                name = way.name + server.suffix
                await stack.add_handler(running, folder, name, node=way.node, **way.settings)
                asks[name] = await opened.enter_async_context(pipeline(running.broker.port, node=way.node))
            yield running.pids, asks

    async def _saturate(self, name: str, request: Request, pids: dict[str, int]) -> None:
        used: list[dict[str, float]] = []
        outcome = await closed_loop(
            request,
            self.photos,
            at_once=_CONCURRENCY,
            seconds=self.seconds,
            warmup_s=_WARMUP_S,
            watch=lambda: used.append(_used_s(pids)),
        )
        self.table.add(SATURATED, name, max(1.0, outcome.per_s))
        self._add_cost(PER_PHOTO, name, *used, photos=len(outcome.latencies_s))

    def _add_cost(
        self, what: str, name: str, before: dict[str, float], after: dict[str, float], *, photos: int
    ) -> None:
        for part, used_s in after.items():
            label = name if part == name else f"{name}, {part}"
            self.table.add(what, label, 1000 * (used_s - before[part]) / max(1, photos))

    async def _load(self, name: str, request: Request, pids: dict[str, int], repeat: int) -> None:
        # Of the first repeat: loads of all repeats are then the same and can be compared.
        limit_per_s = self.table.values[SATURATED, LIMIT][0]
        loads = {f"{load} %": limit_per_s * load / 100 for load in self.loads}
        if self.per_s:
            loads[f"{self.per_s:g} photos/s"] = self.per_s
        for at_load, per_s in loads.items():
            before = _used_s(pids)
            outcome = await open_loop(
                request, self.photos, arrivals(per_s, self.seconds, seed=repeat), _TIMEOUT_S
            )
            for at, value in percentiles(outcome.latencies_s)._asdict().items():
                self.table.add(f"{at} at {at_load}", name, value)
            self.table.add(f"unanswered at {at_load}", name, outcome.failed)
            if self.per_s == per_s:
                what = f"{PER_PHOTO} at {at_load}"
                self._add_cost(what, name, before, _used_s(pids), photos=len(outcome.latencies_s))


def _used_s(pids: dict[str, int]) -> dict[str, float]:
    return {part: procfs.cpu_s(pid) for part, pid in pids.items()}


def _of(name: str, pids: dict[str, int]) -> dict[str, int]:
    """Return the processes that work for a contestant; its own handler is called `handler`."""
    shared = (stack.MODEL_SERVER,) if name.startswith(LIMIT) else (stack.BROKER, stack.MODEL_SERVER)
    return {part: pids[part] for part in shared} | ({"handler": pids[name]} if name in pids else {})


def figures(contest: Contest, *, goals: bool = True) -> list[Figure]:
    """Return the figures of a contest, with the goals for a real model."""
    table, ours = contest.table, HARVESTED.name
    made = table.figures(SATURATED, "photos/s", against=LIMIT)
    for load in contest.loads:
        for at in ("p50", "p95", "p99"):
            is_goal = goals and load in _GOAL_LOADS
            made += table.figures(
                f"{at} at {load} %",
                "ms",
                against=LIMIT,
                chart=f"{at} by load, % of the limit",
                x=load,
                goals={ours: Goal(of="difference", most=_GOALS_MS[at])} if is_goal else None,
            )
        made += table.figures(f"unanswered at {load} %", "photos")
    if contest.per_s:
        at_load = f"{contest.per_s:g} photos/s"
        for at in ("p50", "p95", "p99"):
            made += table.figures(f"{at} at {at_load}", "ms", against=LIMIT)
        made += table.figures(f"{PER_PHOTO} at {at_load}", "ms")
    return made + table.figures(PER_PHOTO, "ms")


def _share(table: Table) -> list[Figure]:
    """Return what broker and handler take of the processor, as a part of what the model takes."""
    broker, model, handler = (
        table.values[PER_PHOTO, f"{HARVESTED.name}, {part}"]
        for part in (stack.BROKER, stack.MODEL_SERVER, "handler")
    )
    values = [(one + two) / whole for one, two, whole in zip(broker, handler, model, strict=True)]
    goal = Goal(most=_GOAL_SHARE)
    return [Figure(name=_SHARE, of=HARVESTED.name, unit="", values=values, goal=goal)]


def _against_rivals(contest: Contest) -> list[Figure]:
    """Return the photos a second in 8 bits, as a multiple of the best rival that serves the SavedModel."""
    rates = {one.name: contest.table.values[SATURATED, one.name] for one in RIVALS if _LITERT not in one.name}
    best = max(rates, key=lambda name: statistics.median(rates[name]))
    ours = HARVESTED.name + INT8.suffix
    return [
        Figure(
            name=f"photos/s at saturation, as a multiple of {best}",
            of=ours,
            unit="",
            values=[
                one / other
                for one, other in zip(contest.table.values[SATURATED, ours], rates[best], strict=False)
            ],
            goal=Goal(least=_GOAL_RATIO),
        )
    ]


async def measure(setting: Setting) -> list[Figure]:
    """Measure the pipeline with a real model."""
    repeats, loads = (1, (_GOAL_LOADS[1],)) if setting.quick else (_REPEATS, _LOADS)
    servers = (Server(), LITERT, INT8)
    ours = sum(server.limit + len(server.ways) for server in servers)
    contestants = ours * _REPEATS + len(RIVALS) * _RIVAL_REPEATS
    starts_s = _START_S * (len(servers) * _REPEATS + len(RIVALS) * _RIVAL_REPEATS)
    each_s = (setting.seconds - starts_s) / contestants - _WARMUP_S
    seconds = 2.0 if setting.quick else max(4.0, each_s / (1 + len(loads)))
    contest = Contest(setting, _MODEL, seconds, repeats, loads)
    await contest.run(servers, RIVALS)
    setting.note(NOTE)
    setting.note(
        "All have one network. `LiteRT` is its float32 form: our light server decodes as the graph does, "
        "and rivals as Pillow does. `int8` is what our light server takes by itself where the processor "
        "gains from it. `queue and process` is Frigate's way: one detector process for all."
    )
    return figures(contest) + _share(contest.table) + _against_rivals(contest)
