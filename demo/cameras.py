"""Device agents that share a folder of photos, and a tally of their results."""

import asyncio
import itertools
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

STAY_S = 4.0
"""Seconds between two photos of a camera when the demonstration stays."""


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
        tally = Tally()
        await self._run_agents("replay", tally, total, 0, "--interval", str(REPLAY_S))
        return tally

    async def live(self, tally: Tally, each: int, interval_s: float, swapped: asyncio.Event) -> None:
        """Send photos for as long as the model is being swapped, and until two versions have answered.

        Args:
            tally: Receives the results.
            each: Photos per camera until it is looked again whether the swap has ended.
            interval_s: Seconds between two photos of a camera.
            swapped: Set when the swap has ended.
        """
        options = ("--interval", str(interval_s), "--count", str(each))
        ended = False
        for number in itertools.count(1):
            last, name = ended, f"live-{number}"
            await self._run_agents(name, tally, AGENTS * each, 1, *options)
            ended = swapped.is_set()
            # Nothing more can be expected of photos that were sent after the swap.
            if last or (ended and len(tally.by_version()) > 1):
                return

    async def go_on(self, camera: str | None) -> None:
        """Send photos until cancelled.

        Args:
            camera: Camera that draws further photos, without its seed; None: those of the folder again.
        """
        async with asyncio.TaskGroup() as tasks:
            for number in range(AGENTS):
                spec = (
                    self._folder(number, 1) if camera is None else f"{camera}?seed={self.seed + 100 + number}"
                )
                tasks.create_task(self._go_on(f"pi-{number + 1}", spec), name="demo.camera")

    async def _go_on(self, device: str, camera: str) -> None:
        # The lines are read, because a full pipe would stop the agent.
        async for _ in self.processes.lines(
            f"stay-{device}", "device", "--json", "--node", NODE, "--name", device,
            "--camera", camera, "--broker", self.services.broker, "--interval", str(STAY_S),
            "--state-dir", str(self.services.work / f"stay-{device}"),
        ):  # fmt: skip
            continue

    def _folder(self, number: int, loop: int) -> str:
        return f"folder:{self.photos}?shuffle={self.seed}&part={number}/{AGENTS}&loop={loop}"

    async def _run_agents(self, name: str, tally: Tally, total: int, loop: int, *options: str) -> None:
        tally.sent += total

        async def agent(number: int) -> None:
            camera = self._folder(number, loop)
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
                    self.processes.check()  # without the edge the agents would never finish
                    update(
                        f"{tally.answered} of {tally.sent} answered, {tally.correct} correct, "
                        f"{len(tally.harvested())} harvested"
                    )
                    await asyncio.wait(agents, timeout=0.5)
