"""One round of the loop, told from the photo to the better model."""

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
"""Steps of a run, those before the round among them."""
_REVIEWS = 20
_WATCHED_PHOTOS = 50
_WATCH_INTERVAL_S = 0.2
_STORED_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round needs.

    Args:
        backbone: Of both versions.
        out: Where the report goes.
        seed: Of every random choice.
        collection: The photos.
        services: Started.
        bus: Connected by its own `run`.
        events: Events of the cloud, subscribed to before.
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

    async def play(self) -> str | None:
        """Play it, print the table, write the report, and return why it is no success, or None."""
        begin, counts = self.screen.begin, self.collection.counts
        store = await asyncio.to_thread(Store.open, self.services.dataset)

        begin(f"training version 1 from {counts['train']} labelled photos ({self.backbone})")
        await self._import(self.collection.labelled, "train")
        await self._import(self.collection.gold, "gold")
        first = await self._train(1)
        await self._release(1)

        begin(f"{AGENTS} device agents send {counts['stream']} photos")
        replay = await self._cameras.replay(counts["stream"])
        await self._stored(store, len(replay.harvested()))

        begin(f"a person labels {_REVIEWS} of the least certain harvested photos")
        reviews = await asyncio.to_thread(awaiting_review, store, _REVIEWS)
        await reviewer.review(reviews, replay.truths(), bus=self.bus, events=self.events, screen=self.screen)

        begin("training version 2 from all of it")
        second = await self._train(2)

        begin("swapping to version 2 while photos flow")
        watch = await self._swap()

        begin("drawing the learning curve and writing the report")
        outcome = Outcome(replay, watch, first, second, frozenset(review.photo_id for review in reviews))
        await self._tell(outcome, store)
        return outcome.problem()

    @property
    def _cameras(self) -> Cameras:
        return Cameras(self.services, self.processes, self.screen, self.collection.stream, self.seed)

    async def _import(self, folder: Path, split: str) -> None:
        words = ("cloud", "import", str(folder), "--split", split, "--dataset", self.services.dataset)
        self.screen.say(f"{split}: {(await self._follow(f'import-{split}', *words)).strip()}")

    async def _train(self, version: int) -> Card:
        out = await self._follow(
            f"train-{version}", "cloud", "train", "--dataset", self.services.dataset,
            "--out", str(self.services.models), "--backbone", self.backbone, "--seed", str(self.seed),
            "--version", str(version), "--cache", str(self.services.features),
        )  # fmt: skip
        for line in out.strip().splitlines()[:-1]:
            self.screen.say(line)
        return await asyncio.to_thread(Registry(self.services.models).card, version)

    async def _release(self, version: int) -> None:
        bundle = Registry(self.services.models).bundle_path(version)
        await self.processes.run(
            f"release-{version}", "cloud", "release", str(bundle), "--nodes", NODE,
            "--broker", self.services.broker, "--wait", "120",
            "--force",  # with few gold photos the gate may not be sure; the swap is shown all the same
        )  # fmt: skip
        self.screen.say(f"{NODE} serves version {version}")

    async def _follow(self, name: str, *words: str, module: str = "cli.main") -> str:
        """Run a command, show the last line of its log meanwhile, and return what it printed."""
        with self.screen.busy(name) as tell:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.processes.run(name, *words, module=module))
                while not running.done():
                    self.processes.check()
                    await asyncio.wait([running], timeout=0.5)
                    tell(f"{name}: {self.processes.said(name) or 'starting'}")
        return running.result()

    async def _stored(self, store: Store, harvested: int) -> None:
        """Wait until every harvested photo is in the dataset."""
        deadline = time.monotonic() + _STORED_S
        while (count := await asyncio.to_thread(store.count, "origin = 'sample'")) < harvested:
            self.processes.check()
            if time.monotonic() > deadline:
                got = f"{count} after {_STORED_S:g} s"
                raise PermanentError("dataset", expected=f"{harvested} samples", got=got)
            await asyncio.sleep(0.2)
        self.screen.say(f"{harvested} are harvested and in the dataset")

    async def _swap(self) -> Tally:
        """Release version 2 as soon as photos flow at a camera's pace."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._cameras.watch(_WATCHED_PHOTOS, _WATCH_INTERVAL_S))
            await asyncio.sleep(1.0)
            await self._release(2)
        return watching.result()

    async def _tell(self, outcome: Outcome, store: Store) -> None:
        """Print the table and write the report."""
        curve = await self._follow(
            "curve", self.services.dataset, str(self.services.features), self.backbone, str(self.seed),
            module="demo.curve",
        )  # fmt: skip
        points = msgspec.json.decode(curve, type=list[Point])
        images = await asyncio.to_thread(_images, store, outcome)
        path = await asyncio.to_thread(report.write, self.out, outcome, points, images)
        self.screen.say(f"report: {path}")
        for what, answer in outcome.rows():
            print(f"{what:<28}{answer}")


def _images(store: Store, outcome: Outcome) -> dict[str, bytes]:
    """Read the photos that the report shows."""
    shown = [line.photo_id for sheet in report.sheets(outcome) for line in sheet.lines]
    found = store.find(shown, ["image"])
    return {photo_id: row["image"] for photo_id, row in found.items() if isinstance(row["image"], bytes)}
