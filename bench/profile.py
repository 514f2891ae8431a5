"""Show where the time goes: the hottest functions and flame graphs of the handler and of the light server.

py-spy samples the running threads without stopping them. The handler has a model that does nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import models, stack
from bench.contestants import bare_loop, pipeline
from bench.figures import Figure
from bench.load import Request, arrivals, closed_loop, open_loop
from bench.photos import pictures
from bench.pipeline import LITERT
from bench.rival import rivals_environment
from bench.setting import Setting
from bench.ways import LOOKED_AT

_CONCURRENCY = 96
_PER_S = 60.0
_WARMUP_S = 5.0
_SAMPLES_PER_S = 250
_HOTTEST = 15
_TIMEOUT_S = 30.0


async def _record(pid: int, path: Path, kind: str, seconds: float, programs: Path) -> None:
    """Sample a process once the load is warmed up."""
    await asyncio.sleep(_WARMUP_S)
    words = (
        str(programs / "py-spy"), "record", "--pid", str(pid), "--output", str(path), "--format", kind,
        "--duration", str(round(seconds)), "--rate", str(_SAMPLES_PER_S), "--nonblocking",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"py-spy failed with exit code {process.returncode}")


async def _saturated(request: Request, seconds: float) -> float:
    outcome = await closed_loop(
        request, pictures(64), at_once=_CONCURRENCY, seconds=seconds, warmup_s=_WARMUP_S
    )
    return outcome.per_s


async def _at_low_rate(request: Request, seconds: float) -> float:
    outcome = await open_loop(
        request, pictures(64), arrivals(_PER_S, seconds + _WARMUP_S), timeout_s=_TIMEOUT_S
    )
    return outcome.per_s


def hottest(stacks: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return functions with their share of the samples, with and without what they call.

    Args:
        stacks: As py-spy writes them: functions from the outermost to the innermost, and a number of samples.
    """
    whole, own = Counter[str](), Counter[str]()
    for line in stacks:
        functions, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] + ")" for frame in functions.split(";") if ":" in frame]
        if frames:
            own[frames[-1]] += int(count)
            for frame in set(frames):
                whole[frame] += int(count)
    total = max(1, own.total())
    return [(frame, 100 * whole[frame] / total, 100 * own[frame] / total) for frame, _ in own.most_common()]


def table(title: str, stacks: Sequence[str]) -> str:
    """Return the hottest functions as a table in Markdown."""
    rows = [f"| `{name}` | {own:.1f} % | {whole:.1f} % |" for name, whole, own in hottest(stacks)[:_HOTTEST]]
    return "\n".join((f"| {title} | itself | with what it calls |", "|---|---|---|", *rows))


async def _profile(setting: Setting, name: str, pid: int, request: Request, seconds: float) -> list[float]:
    """Record a flame graph at saturation, and the hottest functions at saturation and at a low rate."""
    programs = await rivals_environment()
    picture, stacks = setting.out / f"{name.replace(' ', '-')}-flame-graph.svg", setting.folder / "stacks"
    rates = []
    for load, where in ((_saturated, "at saturation"), (_at_low_rate, f"at {_PER_S:g} photos/s")):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_record(pid, stacks, "raw", seconds, programs), name="bench.py-spy")
            loading = tasks.create_task(load(request, seconds), name="bench.load")
        rates.append(loading.result())
        lines = await asyncio.to_thread(lambda: stacks.read_text("utf-8").splitlines())
        setting.note(table(f"{name}, {where}", lines))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_record(pid, picture, "flamegraph", seconds, programs), name="bench.py-spy")
        tasks.create_task(_saturated(request, seconds), name="bench.load")
    # Without the folder of py-spy in the command line.
    drawn = picture.read_text("utf-8").replace(f"{programs}/", "")
    picture.write_text(drawn, "utf-8")
    setting.note(f"![The {name} at saturation](benchmarks/{picture.name})")
    return rates


async def measure(setting: Setting) -> list[Figure]:
    """Profile the handler and the light server."""
    seconds = 3.0 if setting.quick else max(5.0, (setting.seconds - 40) / 6 - _WARMUP_S)
    figures = []
    async with stack.served(setting.folder, "null") as running:
        await stack.add_handler(running, setting.folder, node=LOOKED_AT.node, **LOOKED_AT.settings)
        async with pipeline(running.broker.port, node=LOOKED_AT.node) as request:
            rates = await _profile(setting, "handler", running.pids["handler"], request, seconds)
            figures += _figures("handler", rates)
    folder = setting.folder / "light"
    async with (
        stack.served(folder, "efficientnet-lite0+litert", *LITERT.flags) as running,
        bare_loop(running.serving, models.MODEL) as request,
    ):
        rates = await _profile(setting, "light server", running.pids[stack.MODEL_SERVER], request, seconds)
        figures += _figures("light server", rates)
    return figures


def _figures(name: str, rates: list[float]) -> list[Figure]:
    return [
        Figure(name=f"photos/s while it was recorded, {load}", of=name, unit="photos/s", values=[rate])
        for load, rate in zip(("saturated", "at a low rate"), rates, strict=True)
    ]
