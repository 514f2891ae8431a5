"""Device agents that share a folder of photos, and a tally of their results."""

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
"""Seconds between two photos of a replay; the window of the outbox is the real limit."""


@dataclass(frozen=True, slots=True)
class Cameras:
    """Three device agents, each in its own process.

    Args:
        photos: The folder that they share.
        seed: Seed of the order of the photos.
    """

    services: Services
    processes: Processes
    screen: Screen
    photos: Path
    seed: int

    async def replay(self, total: int) -> Tally:
        """Send all photos once, as fast as results return."""
        return await self._run_agents("replay", total, 0, "--interval", str(REPLAY_S))

    async def live(self, each: int, interval_s: float) -> Tally:
        """Send `each` photos per camera, one every `interval_s` seconds."""
        return await self._run_agents(
            "live", AGENTS * each, 1, "--interval", str(interval_s), "--count", str(each)
        )

    async def _run_agents(self, name: str, total: int, loop: int, *options: str) -> Tally:
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

        with self.screen.progress("photos") as update:
            async with asyncio.TaskGroup() as tasks:
                agents = [tasks.create_task(agent(number)) for number in range(AGENTS)]
                while not all(task.done() for task in agents):
                    self.processes.check()  # without the edge the agents would wait for ever
                    update(
                        f"{tally.answered} of {total} answered, {tally.correct} correct, "
                        f"{len(tally.harvested())} harvested"
                    )
                    await asyncio.wait(agents, timeout=0.5)
        return tally
