"""The cameras of a run: device agents that share a folder of photos, and what they print, counted."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec

from demo.processes import Processes
from demo.screen import Screen
from demo.services import NODE, Services
from demo.tally import Line, Tally

AGENTS = 3
REPLAY_S = 0.01
"""Between two photos of a replay: as fast as they are answered."""


@dataclass(frozen=True, slots=True)
class Cameras:
    """Three device agents, each a process.

    Args:
        photos: The folder that they share.
        seed: Of the order in which they take its photos.
    """

    services: Services
    processes: Processes
    screen: Screen
    photos: Path
    seed: int

    async def replay(self, total: int) -> Tally:
        """Send all photos once, each as soon as there is room for it."""
        return await self._flow("replay", total, 0, "--interval", str(REPLAY_S))

    async def watch(self, each: int, interval_s: float) -> Tally:
        """Send so many photos from each camera at a camera's pace."""
        return await self._flow(
            "watch", AGENTS * each, 1, "--interval", str(interval_s), "--count", str(each)
        )

    async def _flow(self, name: str, total: int, loop: int, *options: str) -> Tally:
        tally = Tally(sent=total)

        async def agent(number: int) -> None:
            camera = f"folder:{self.photos}?shuffle={self.seed}&part={number}/{AGENTS}&loop={loop}"
            device = f"pi-{number + 1}"
            async for line in self.processes.lines(
                f"{name}-{device}", "device", "--json", "--node", NODE, "--name", device,
                "--camera", camera, "--broker", self.services.broker,
                "--state-dir", str(self.services.work / f"{name}-{device}"), *options,
            ):  # fmt: skip
                tally.add(msgspec.json.decode(line, type=Line))

        with self.screen.busy("photos") as tell:
            async with asyncio.TaskGroup() as tasks:
                agents = [tasks.create_task(agent(number)) for number in range(AGENTS)]
                while not all(task.done() for task in agents):
                    self.processes.check()
                    tell(
                        f"{tally.answered} of {total} answered, {tally.right} right, "
                        f"{len(tally.harvested())} harvested"
                    )
                    await asyncio.wait(agents, timeout=0.5)
        return tally
