"""The demonstration: the whole loop on this machine, prepared, played and cleaned up.

Every component is a process of its own and they speak through topics alone; what is here only starts them,
watches, and plays the person who labels.
"""

import asyncio
import itertools
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bus import log
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from demo import photos
from demo.processes import Processes
from demo.round import STEPS, Round
from demo.screen import Screen
from demo.services import Services
from schemas.topics import CLOUD, EVENT

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DRAWN_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Demo:
    """One run.

    Args:
        backbone: Of both versions.
        out: Where the report goes.
        source: A folder of real photos; None draws.
        seed: Of every random choice.
        work: A folder of our own.
        screen: Where it tells what goes on.
    """

    backbone: str
    out: Path
    source: Path | None
    seed: int
    work: Path
    screen: Screen

    async def run(self) -> str | None:
        """Play the whole round and return why it is no success, or None. Safe to cancel."""
        async with Processes(self.work / "logs") as processes:
            self.screen.begin("drawing cats and dogs" if self.source is None else f"photos of {self.source}")
            async with asyncio.TaskGroup() as tasks:
                preparing = tasks.create_task(self._collect())
                reason = await processes.run("backbone", self.backbone, module="demo.backbone")
                if reason := reason.strip():
                    preparing.cancel()
                    return reason
            services = Services(self.work)
            self.screen.begin("starting broker, model server, edge and collector")
            await services.start_broker(processes)
            await services.start_others(processes)
            bus = Bus(Broker(port=services.port), transient_client_id("demo"))
            events = bus.subscribe(EVENT, queue=1024, node=CLOUD)
            async with asyncio.TaskGroup() as tasks:
                connection = tasks.create_task(bus.run(), name="demo.bus")
                problem = await Round(
                    backbone=self.backbone, out=self.out, seed=self.seed, collection=preparing.result(),
                    services=services, processes=processes, screen=self.screen, bus=bus, events=events,
                ).play()  # fmt: skip
                connection.cancel()
        return problem

    async def _collect(self) -> photos.Collection:
        """Choose the photos, those of the folder or drawn ones."""
        source = self.source or await self._draw()
        chosen = await asyncio.to_thread(photos.collect, source, self.work / "photos", self.seed)
        doubles = f" ({chosen.duplicates} doubles left out)" if chosen.duplicates else ""
        train, stream, gold = (chosen.counts[split] for split in ("train", "stream", "gold"))
        self.screen.say(f"{train} with a label, {stream} for the cameras, {gold} to judge on{doubles}")
        return chosen

    async def _draw(self) -> Path:
        directory, drawn = self.work / "drawn", 0
        drawing = photos.draw(directory, self.seed)
        with self.screen.busy("drawing") as tell:
            # A thread cannot be cancelled, so it draws a few at a time.
            while step := await asyncio.to_thread(list, itertools.islice(drawing, _DRAWN_AT_ONCE)):
                drawn += len(step)
                tell(f"{drawn} of {sum(photos.DRAWN.values())} are drawn")
        return directory


def play(*, backbone: str, out: Path, source: Path | None, seed: int, keep: bool) -> int:
    """Run the demonstration in a folder of its own, which is removed at the end.

    Returns:
        The exit code: 0 if it is a success, 1 if not, 130 if a signal ended it.
    """
    log.configure("error")
    work, screen = Path(tempfile.mkdtemp(prefix="gleaner-demo-")), Screen(STEPS)
    try:
        return asyncio.run(_until_told(Demo(backbone, out, source, seed, work, screen)))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if keep:
            screen.say(f"kept: {work}")
        else:
            shutil.rmtree(work)


async def _until_told(demo: Demo) -> int:
    """Run it until a signal; further signals change nothing, so that all is ended in order."""
    loop, task, told = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def stop() -> None:
        nonlocal told
        if not told:
            told = True
            demo.screen.say("ending what was started …")
            task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks for
            loop.add_signal_handler(number, stop)
    try:
        problem = await demo.run()
    except asyncio.CancelledError:
        if told:
            return INTERRUPTED
        raise
    if problem is not None:
        print(f"gleaner demo: {problem}", file=sys.stderr)
    return 0 if problem is None else 1
