"""Draw a flame graph of the handler under load with py-spy, with a model that does nothing.

py-spy samples the running threads without stopping the handler.
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

_CONCURRENCY = 96
_WARMUP_S = 5.0
_PER_S = 250


def _remove_paths(picture: Path, programs: str) -> None:
    """Remove the folder of py-spy from the command line in the picture."""
    picture.write_text(picture.read_text("utf-8").replace(f"{programs}/", ""), "utf-8")


async def measure(setting: Setting) -> list[Figure]:
    """Draw the flame graph of the handler."""
    seconds = 4 if setting.quick else 30
    programs, picture = await rivals_environment(), setting.out / "handler-flame-graph.svg"
    async with stack.served(setting.folder, "null") as running:
        await stack.add_handler(running, setting.folder)
        async with pipeline(running.broker.port) as request:
            words = (
                str(programs / "py-spy"), "record", "--pid", str(running.pids["handler"]),
                "--output", str(picture),
                "--duration", str(seconds), "--rate", str(_PER_S), "--nonblocking",
            )  # fmt: skip

            async def record() -> None:
                await asyncio.sleep(_WARMUP_S)
                process = await asyncio.create_subprocess_exec(*words)
                if await process.wait():
                    raise RuntimeError(f"py-spy failed with exit code {process.returncode}")

            recording = asyncio.create_task(record(), name="bench.py-spy")
            outcome = await closed_loop(
                request, pictures(64), at_once=_CONCURRENCY, seconds=seconds, warmup_s=_WARMUP_S
            )
            await recording
            await asyncio.to_thread(_remove_paths, picture, str(programs))
    setting.note(f"![The handler under load, with a model that does nothing](benchmarks/{picture.name})")
    return [
        Figure(name="photos/s while it was recorded", of="Gleaner", unit="photos/s", values=[outcome.per_s])
    ]
