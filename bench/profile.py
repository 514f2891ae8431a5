"""Where the handler's time goes under load: a flame graph by py-spy, with a model that does nothing.

Samples are taken of the threads that run, a hundred times a second and more, without stopping the handler.
"""

import asyncio
from pathlib import Path

from bench import stack
from bench.contestants import pipeline
from bench.figures import Figure
from bench.load import closed_loop
from bench.photos import pictures
from bench.rival import rivals_environment
from bench.setting import Setting

_AT_ONCE = 96
_SETTLE_S = 5.0
_PER_S = 250


def _forget_places(picture: Path, programs: str) -> None:
    """Take the folder of py-spy out of the command that it writes under its title."""
    picture.write_text(picture.read_text("utf-8").replace(f"{programs}/", ""), "utf-8")


async def measure(setting: Setting) -> list[Figure]:
    """Draw the flame graph of the handler."""
    seconds = 4 if setting.quick else 30
    programs, picture = await rivals_environment(), setting.out / "handler-flame-graph.svg"
    async with stack.served(setting.folder, "null") as running:
        await stack.add_handler(running, setting.folder)
        async with pipeline(running.broker.port) as ask:
            words = (
                str(programs / "py-spy"), "record", "--pid", str(running.pids["handler"]),
                "--output", str(picture),
                "--duration", str(seconds), "--rate", str(_PER_S), "--nonblocking",
            )  # fmt: skip

            async def record() -> None:
                await asyncio.sleep(_SETTLE_S)
                process = await asyncio.create_subprocess_exec(*words)
                if await process.wait():
                    raise RuntimeError(f"py-spy: expected to record, got exit code {process.returncode}")

            recording = asyncio.create_task(record(), name="bench.py-spy")
            outcome = await closed_loop(
                ask, pictures(64), at_once=_AT_ONCE, seconds=seconds, settle_s=_SETTLE_S
            )
            await recording
            await asyncio.to_thread(_forget_places, picture, str(programs))
    setting.note(f"![The handler under load, with a model that does nothing](benchmarks/{picture.name})")
    return [
        Figure(name="photos/s while it was recorded", of="Gleaner", unit="photos/s", values=[outcome.per_s])
    ]
