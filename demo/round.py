"""One round of the loop: classify, harvest, label, train, release."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from cloud.dataset.store import Store
from cloud.labeling.review_queue import awaiting_review
from cloud.registry.model_card import Card
from cloud.registry.registry import Registry
from demo import report, reviewer
from demo.cameras import AGENTS, Cameras
from demo.curve import Point
from demo.photos import Collection
from demo.processes import Processes
from demo.screen import Screen
from demo.services import NODE, Services
from demo.tally import Outcome, Tally
from schemas.errors import PermanentError
from schemas.messages import Event

STEPS = 8
"""Steps of a run, including the two before the round."""
_REVIEWS_PER_LABEL = 2
"""Photos that the reviewer labels for each one that was labelled at first: more classes need more labels."""
_LIVE_PHOTOS = 50
_LIVE_INTERVAL_S = 0.2
_STORED_S = 240.0
_LAST = 2
"""The version that the round ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round on services that are running.

    Args:
        backbone: Backbone of both versions.
        out: Folder of the report.
        seed: Seed of every random choice.
        collection: The photos.
        services: Already started.
        bus: Connected by its own `run`.
        events: Events of the cloud, already subscribed to.
    """

    backbone: str
    out: Path
    seed: int
    collection: Collection
    services: Services
    processes: Processes
    screen: Screen
    bus: Bus
    events: Subscription[Event]

    async def run(self) -> str | None:
        """Run the round, print the table and write the report; return why it failed, or None."""
        start_step, counts = self.screen.start_step, self.collection.counts
        store = await asyncio.to_thread(Store.open, self.services.dataset)

        start_step(f"training version 1 from {counts['train']} labelled photos ({self.backbone})")
        await self._import(self.collection.labelled, "train")
        await self._import(self.collection.gold, "gold")
        first = await self._train(1)
        await self._release(1)

        start_step(f"{AGENTS} device agents send {counts['stream']} photos")
        replay = await self._cameras.replay(counts["stream"])
        await self._wait_until_stored(store, len(replay.harvested()))

        wanted = _REVIEWS_PER_LABEL * counts["train"]
        start_step(f"a reviewer labels the {wanted} harvested photos that the review asks about first")
        reviews = await asyncio.to_thread(awaiting_review, store, wanted)
        await reviewer.review(reviews, replay.truths(), bus=self.bus, events=self.events, screen=self.screen)

        start_step("training version 2 from all labels")
        second = await self._train(_LAST)

        start_step("releasing version 2 while the cameras send photos")
        live = await self._swap()

        start_step("drawing the learning curve and writing the report")
        outcome = Outcome(replay, live, first, second, frozenset(review.photo_id for review in reviews))
        await self._report(outcome, store)
        return outcome.problem()

    async def serve_champion(self) -> None:
        """Release the champion again if the gate did not promote the version that the swap released.

        A rollout compares the next version with the champion, so the champion has to be in service.
        """
        champion = await asyncio.to_thread(Registry(self.services.models).champion)
        if champion is not None and champion.card.version != _LAST:
            self.screen.print(f"the gate did not promote version {_LAST}")
            await self._release(champion.card.version)

    @property
    def _cameras(self) -> Cameras:
        return Cameras(self.services, self.processes, self.screen, self.collection.stream, self.seed)

    async def _import(self, folder: Path, split: str) -> None:
        words = ("cloud", "import", str(folder), "--split", split, "--dataset", self.services.dataset)
        out = await self._run_command(f"import-{split}", *words)
        # Without the counts of each class, and the advice for those who have no gold photos yet.
        self.screen.print(f"{split}: {out.strip().splitlines()[0]}")

    async def _train(self, version: int) -> Card:
        out = await self._run_command(
            f"train-{version}", "cloud", "train", "--dataset", self.services.dataset,
            "--out", str(self.services.models), "--backbone", self.backbone, "--seed", str(self.seed),
            "--version", str(version), "--cache", str(self.services.features),
        )  # fmt: skip
        for line in out.strip().splitlines()[:-1]:  # the last one has only the version and its bundle
            if not line.startswith("report: "):  # in a folder that is removed; the demonstration has its own
                self.screen.print(line)
        return await asyncio.to_thread(Registry(self.services.models).card, version)

    async def _release(self, version: int) -> None:
        bundle = Registry(self.services.models).bundle_path(version)
        await self.processes.run(
            f"release-{version}", "cloud", "release", str(bundle), "--nodes", NODE,
            "--broker", self.services.broker, "--wait", "240",
            "--force",  # with few gold photos the gate may be inconclusive; the demonstration releases anyway
        )  # fmt: skip
        self.screen.print(f"{NODE} serves version {version}")

    async def _run_command(self, name: str, *words: str, module: str = "cli.main") -> str:
        """Run a command, show the last line of its log while it runs, and return its standard output."""
        with self.screen.progress(name) as update:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.processes.run(name, *words, module=module))
                line = "starting"
                while not running.done():
                    self.processes.check()
                    await asyncio.wait([running], timeout=0.5)
                    # The end of the log may have lines of libraries alone: then the last own one still holds.
                    line = self.processes.last_log_line(name) or line
                    update(f"{name}: {line}")
        return running.result()

    async def _wait_until_stored(self, store: Store, harvested: int) -> None:
        """Wait until every harvested photo is in the dataset."""
        deadline = time.monotonic() + _STORED_S
        while (count := await asyncio.to_thread(store.count, "origin = 'sample'")) < harvested:
            self.processes.check()
            if time.monotonic() > deadline:
                raise PermanentError(f"{count} of {harvested} samples were stored in {_STORED_S:g} s")
            await asyncio.sleep(0.2)
        self.screen.print(f"{harvested} photos are harvested and stored in the dataset")

    async def _swap(self) -> Tally:
        """Release version 2 while the cameras send photos."""
        tally, released = Tally(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cameras.live(tally, _LIVE_PHOTOS, _LIVE_INTERVAL_S, released))
            while not tally.answered:  # noqa: ASYNC110 - of version 1; a tally is data, without an event
                await asyncio.sleep(0.1)
            await self._release(_LAST)
            released.set()
        return tally

    async def _report(self, outcome: Outcome, store: Store) -> None:
        """Print the table and write the report."""
        curve = await self._run_command(
            "curve", self.services.dataset, str(self.services.features), outcome.second.backbone,
            str(self.seed), self.backbone, module="demo.curve",
        )  # fmt: skip
        points = msgspec.json.decode(curve, type=list[Point])
        images = await asyncio.to_thread(_images, store, outcome)
        path = await asyncio.to_thread(report.write, self.out, outcome, points, images)
        self.screen.print(f"report: {path}")
        for name, value in outcome.rows():
            print(f"{name:<28}{value}")


def _images(store: Store, outcome: Outcome) -> dict[str, bytes]:
    """Read the photos that the report shows."""
    shown = [line.photo_id for group in report.photo_groups(outcome) for line in group.lines]
    found = store.find(shown, ["image"])
    return {photo_id: row["image"] for photo_id, row in found.items() if isinstance(row["image"], bytes)}
