"""Run the demonstration: prepare photos and services, run one round, and clean up.

Every component is a separate process, and they communicate only through topics. This module starts and
monitors them, and labels photos as a scripted reviewer.
"""

import asyncio
import contextlib
import itertools
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bus import log
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from cloud.modeling.backbone_names import check_backbone_name
from demo import photos
from demo.cameras import Cameras
from demo.processes import Processes
from demo.round import STEPS, Round
from demo.screen import Screen
from demo.services import LABELS_PER_ROUND, Services
from schemas.topics import CLOUD, EVENT

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DRAWN_AT_ONCE = 8
_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Demo:
    """One run of the demonstration.

    Args:
        backbone: Backbone of both versions.
        out: Folder of the report.
        source: A folder of photos; None for synthetic ones.
        seed: Seed of every random choice.
        work: Temporary folder of this run.
        screen: Shows the progress.
        stay: Whether everything keeps running afterwards.
        staying: Set once everything is done and keeps running.
        leave: Ends that.
    """

    backbone: str
    out: Path
    source: Path | None
    seed: int
    work: Path
    screen: Screen
    stay: bool = False
    staying: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> str | None:
        """Run everything; return why it failed, or None. Safe to cancel: all processes are terminated.

        Raises:
            PermanentError: The photos cannot be used, no backbone has that name, or a process has failed.
        """
        async with Processes(self.work / "logs") as processes:
            self.screen.start_step(
                "drawing synthetic photos" if self.source is None else f"photos of {self.source}"
            )
            check_backbone_name(self.backbone)
            # Together: both take seconds, and a backbone that is not available ends the run at once.
            async with asyncio.TaskGroup() as tasks:
                preparing = tasks.create_task(self._collect())
                reason = await processes.run("backbone", self.backbone, module="demo.backbone")
                if reason := reason.strip():
                    preparing.cancel()
                    return reason
            services = Services(self.work)
            self.screen.start_step("starting broker, model server, edge and collector")
            await services.start_broker(processes)
            await services.start_others(processes)
            console = await services.start_console(processes)
            self.screen.print("watch all that follows in a browser:")
            self.screen.highlight(f"console: {console}")
            bus = Bus(Broker(port=services.port), transient_client_id("demo"))
            events = bus.subscribe(EVENT, queue=1024, node=CLOUD)
            async with asyncio.TaskGroup() as tasks:
                connection = tasks.create_task(bus.run(), name="demo.bus")
                whole = Round(
                    backbone=self.backbone, out=self.out, seed=self.seed, collection=preparing.result(),
                    services=services, processes=processes, screen=self.screen, bus=bus, events=events,
                )  # fmt: skip
                problem = await whole.run()
                if self.stay:
                    if problem is not None:
                        self.screen.print(problem)  # now, not when it is left
                    await whole.serve_champion()
                    await self._stay(preparing.result(), services, processes)
                connection.cancel()
        return problem

    async def _stay(self, collection: photos.Collection, services: Services, processes: Processes) -> None:
        """Leave everything running until a signal, with cameras that keep sending photos, and a trainer.

        Raises:
            PermanentError: A service has ended.
        """
        await services.start_trainer(processes, self.backbone)
        self.screen.print("everything keeps running, and a trainer waits for labels:")
        self.screen.print(f"give {LABELS_PER_ROUND} in the page Review, and it makes the next version;")
        self.screen.print("the page Rollout shows it if the gate promotes it, the page Models says why not")
        self.screen.highlight(f"console: {services.console_address()}")
        self.screen.print("Ctrl-C stops everything")
        self.staying.set()
        cameras = Cameras(services, processes, self.screen, collection.stream, self.seed)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(cameras.go_on("drawn" if self.source is None else None))
            while not self.leave.is_set():
                processes.check()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_S):
                        await self.leave.wait()
            sending.cancel()

    async def _collect(self) -> photos.Collection:
        """Collect the photos of the folder, or synthetic ones."""
        source = self.source or await self._draw()
        chosen = await asyncio.to_thread(photos.collect, source, self.work / "photos", self.seed)
        duplicates = f" ({chosen.duplicates} duplicates left out)" if chosen.duplicates else ""
        for name, count in chosen.left_out.items():
            self.screen.print(f"class {name!r} is left out: {count} photos are too few")
        train, stream, gold = (chosen.counts[split] for split in ("train", "stream", "gold"))
        self.screen.print(f"{train} labelled, {stream} for the cameras, {gold} for evaluation{duplicates}")
        return chosen

    async def _draw(self) -> Path:
        directory, drawn = self.work / "synthetic", 0
        drawing = photos.draw(directory, self.seed)
        with self.screen.progress("drawing") as update:
            # A thread cannot be cancelled: with a few photos at a time Ctrl-C takes effect soon.
            while step := await asyncio.to_thread(list, itertools.islice(drawing, _DRAWN_AT_ONCE)):
                drawn += len(step)
                update(f"{drawn} of {sum(photos.DRAWN.values())} photos")
        return directory


def run_demo(
    *, backbone: str, out: Path, source: Path | None, seed: int, keep: bool, stay: bool = False
) -> int:
    """Run the demonstration in a temporary folder, which is removed at the end unless `keep` is set.

    With `stay` the end is a signal.

    Returns:
        The exit code: 0 for success, 1 for failure, 130 after a signal.
    """
    log.configure("error")
    work, screen = Path(tempfile.mkdtemp(prefix="gleaner-demo-")), Screen(STEPS)
    try:
        return asyncio.run(_until_signalled(Demo(backbone, out, source, seed, work, screen, stay)))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of the folder
        if keep:
            screen.print(f"kept: {work}")
        else:
            shutil.rmtree(work)


async def _until_signalled(demo: Demo) -> int:
    """Run until a signal arrives; ignore further signals, so that the clean-up is complete."""
    loop, task, signalled = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def stop() -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            demo.screen.print("stopping all processes …")
            if demo.staying.is_set():
                demo.leave.set()
            else:
                task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup sets SIGHUP to ignored, and it must stay so
            loop.add_signal_handler(number, stop)
    try:
        problem = await demo.run()
    except asyncio.CancelledError:
        if signalled:
            return INTERRUPTED
        raise
    if problem is not None:
        print(f"gleaner demo: {problem}", file=sys.stderr)
    return 0 if problem is None else 1
