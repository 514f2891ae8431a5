"""The demonstration: one round of the loop, told from the photo to the better model.

Every component is a process of its own and they speak through topics alone; what is here only starts them,
watches, and plays the person who labels.
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.status import Status
from rich.table import Table

from bus import log
from bus.broker import free_port, listens
from bus.config import Broker
from bus.delivery import Subscription
from bus.mosquitto import find
from bus.mqtt import Bus, passing_id
from bus.presence import now_ms
from cloud.card import FILE_NAME, Card, read_card
from cloud.dataset import Review, awaiting_review
from cloud.store import Store
from demo import report
from demo.photos import Collection, collect
from demo.processes import Processes
from demo.tally import Line, Tally, rows, verdict
from device.replay import photo_files
from schemas.errors import PermanentError
from schemas.messages import Event, Feedback
from schemas.topics import CLOUD, EVENT, FEEDBACK

_AGENTS = 3
_REVIEWS = 20
_SWAP_PHOTOS = 40
_SWAP_INTERVAL_S = 0.2
_START_S = 60.0
_SETTLE_S = 60.0
_NODE = "edge-1"
_EDGE_CONFIG = """
[harvest]
auto_confidence = 0.8
hard_confidence = 0.8
near_duplicate_bits = 2
[harvest.caps]
per_minute = 5000
bytes_per_minute = 500000000
bytes_per_hour = 500000000
"""


@dataclass(slots=True)
class Demo:
    """One run.

    Args:
        backbone: Of both versions.
        out: Where the report goes.
        photos: A folder of real photos; None draws.
        seed: Of every random choice.
        work: A folder of our own.
    """

    backbone: str
    out: Path
    photos: Path | None
    seed: int
    work: Path
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    began: float = field(default_factory=time.monotonic)
    port: int = field(default_factory=free_port)
    serving: int = field(default_factory=free_port)
    events: Subscription[Event] | None = None

    async def run(self) -> str | None:
        """Play the whole round and return why it is no success, or None."""
        self._say("photos: " + ("drawing them" if self.photos is None else f"those of {self.photos}"))
        collection = await asyncio.to_thread(collect, self.work, self.photos, self.seed)
        await asyncio.to_thread(find)
        async with Processes(self.work / "logs") as processes:
            await self._start(processes)
            bus = Bus(Broker(port=self.port), passing_id("demo"))
            self.events = bus.subscribe(EVENT, node=CLOUD)
            async with asyncio.TaskGroup() as tasks:
                connection = tasks.create_task(bus.run(), name="demo.bus")
                outcome = await self._round(processes, bus, collection)
                connection.cancel()
        return outcome

    async def _start(self, processes: Processes) -> None:
        self._say("starting broker, model server, edge and collector")
        config = self.work / "edge.toml"
        config.write_text(_EDGE_CONFIG, encoding="utf-8")
        broker = f"127.0.0.1:{self.port}"
        models = str(self.work / "serving")
        (self.work / "serving" / "pets").mkdir(parents=True)
        await processes.start(
            "broker", "broker", "--port", str(self.port), "--dir", str(self.work / "broker")
        )
        deadline = time.monotonic() + _START_S
        while not listens(self.port):
            processes.check()
            if time.monotonic() > deadline:
                raise PermanentError("broker", expected=f"to listen within {_START_S:g} s", got="nothing")
            await asyncio.sleep(0.05)
        await processes.start(
            "modelserver", "modelserver", "--model_name=pets", f"--model_base_path={models}/pets",
            f"--port={self.serving}", "--file_system_poll_wait_seconds=0.5",
        )  # fmt: skip
        await processes.start(
            "edge", "edge", "--config", str(config), "--node", _NODE, "--broker", broker,
            "--serving", f"127.0.0.1:{self.serving}", "--models-dir", models,
            "--state-dir", str(self.work / "edge"),
        )  # fmt: skip
        await processes.start("collector", "cloud", "collect", "--broker", broker, "--dataset", self._dataset)

    async def _round(self, processes: Processes, bus: Bus, collection: Collection) -> str | None:
        first = await self._first_version(processes, collection)
        total = len(photo_files(collection.stream))
        self._say(f"{_AGENTS} device agents send {total} photos")
        stream = await self._flow(processes, collection.stream, "agent", total)
        harvested = len(stream.harvested())
        self._say(f"{stream.answered} answered, {harvested} harvested; waiting until all are stored")
        store = await asyncio.to_thread(Store.open, self._dataset)
        await self._stored(processes, store, harvested)
        reviewed = await self._review(bus, store, stream.truths())
        second, swap = await self._second_version(processes, collection)
        table = rows(stream, swap, (first, second), len(reviewed))
        self._print(table)
        asked = {review.photo_id for review in reviewed}
        images = await asyncio.to_thread(self._images, store, stream)
        picture = partial(report.write, images=images, reviewed=asked)
        path = await asyncio.to_thread(picture, self.out, table, (first, second), stream)
        self._say(f"report: {path}")
        return verdict(stream, swap, (first, second))

    async def _first_version(self, processes: Processes, collection: Collection) -> Card:
        count = len(photo_files(collection.labelled))
        self._say(f"importing {count} labelled photos and the gold set")
        await processes.run("import", "cloud", "import", str(collection.labelled), "--dataset", self._dataset)
        await processes.run(
            "import-gold",
            "cloud",
            "import",
            str(collection.gold),
            "--split",
            "gold",
            "--dataset",
            self._dataset,
        )
        card = await self._train(processes, 1)
        await self._release(processes, 1)
        return card

    async def _second_version(self, processes: Processes, collection: Collection) -> tuple[Card, Tally]:
        """Train from all there is, then swap while photos flow."""
        card = await self._train(processes, 2)
        self._say("swapping to version 2 while photos flow")
        options = ("--count", str(_SWAP_PHOTOS))
        async with asyncio.TaskGroup() as tasks:
            flowing = tasks.create_task(
                self._flow(
                    processes, collection.stream, "swap", _AGENTS * _SWAP_PHOTOS, *options,
                    interval_s=_SWAP_INTERVAL_S,
                )
            )  # fmt: skip
            await asyncio.sleep(1.0)
            await self._release(processes, 2)
        return card, flowing.result()

    async def _train(self, processes: Processes, version: int) -> Card:
        self._say(f"training version {version} ({self.backbone})")
        models = self.work / "models"
        with self._busy(f"training version {version}"):
            out = await processes.run(
                f"train-{version}", "cloud", "train", "--dataset", self._dataset, "--out", str(models),
                "--backbone", self.backbone, "--seed", str(self.seed), "--version", str(version),
                "--cache", str(self.work / "features"),
            )  # fmt: skip
        for line in out.strip().splitlines()[:-1]:
            self.console.print(f"        {line}")
        return await asyncio.to_thread(read_card, models / str(version) / "assets.extra" / FILE_NAME)

    async def _release(self, processes: Processes, version: int) -> None:
        bundle = self.work / "models" / f"{version}.tar"
        await processes.run(
            f"release-{version}", "cloud", "release", str(bundle), "--nodes", _NODE,
            "--broker", f"127.0.0.1:{self.port}", "--wait", "60",
        )  # fmt: skip
        self._say(f"{_NODE} serves version {version}")

    async def _flow(
        self,
        processes: Processes,
        folder: Path,
        name: str,
        total: int,
        *options: str,
        interval_s: float = 0.01,
    ) -> Tally:
        """Let the agents share a folder, and count what they print."""
        tally = Tally(sent=total)

        async def agent(number: int) -> None:
            camera = f"folder:{folder}?shuffle={self.seed}&part={number}/{_AGENTS}"
            async for line in processes.lines(
                f"{name}-{number}", "device", "--json", "--node", _NODE, "--name", f"pi-{number + 1}",
                "--camera", camera + ("&loop=1" if options else ""), "--interval", str(interval_s),
                "--broker", f"127.0.0.1:{self.port}", "--state-dir", str(self.work / f"{name}-{number}"),
                *options,
            ):  # fmt: skip
                tally.add(msgspec.json.decode(line, type=Line))

        with self._busy("photos") as status:
            async with asyncio.TaskGroup() as tasks:
                agents = [tasks.create_task(agent(number)) for number in range(_AGENTS)]
                while not all(done.done() for done in agents):
                    processes.check()
                    right = sum(line.label == line.truth for line in tally.lines)
                    status.update(
                        f"{tally.answered} of {total} answered, {right} right, "
                        f"{len(tally.harvested())} harvested"
                    )
                    await asyncio.wait(agents, timeout=0.5)
        return tally

    async def _stored(self, processes: Processes, store: Store, harvested: int) -> None:
        """Wait until every harvested photo is in the dataset."""
        deadline = time.monotonic() + _SETTLE_S
        while (count := await asyncio.to_thread(store.count, "origin = 'sample'")) < harvested:
            processes.check()
            if time.monotonic() > deadline:
                got = f"{count} after {_SETTLE_S:g} s"
                raise PermanentError("dataset", expected=f"{harvested} samples", got=got)
            await asyncio.sleep(0.2)

    async def _review(self, bus: Bus, store: Store, truths: dict[str, str]) -> list[Review]:
        """Answer the least certain photos through the feedback topic, as a person would."""
        reviews = await asyncio.to_thread(awaiting_review, store, _REVIEWS)
        self._say(f"a reviewer labels the {len(reviews)} least certain of them")
        assert self.events is not None
        waiting = set()
        async with asyncio.timeout(_SETTLE_S):
            await bus.connected()
            for review in reviews:
                device = review.device or "pi-1"
                feedback = Feedback(
                    photo_id=review.photo_id,
                    node=_NODE,
                    device=device,
                    label=truths[review.photo_id],
                    by="reviewer",
                    at_ms=now_ms(),
                )
                await bus.publish(FEEDBACK, feedback, node=_NODE, device=device)
                waiting.add(review.photo_id)
            while waiting:
                event = (await self.events.queue.get()).message()
                if event.event == "feedback.recorded":
                    waiting.discard(str(event.facts.get("photo_id")))
        return reviews

    def _images(self, store: Store, stream: Tally) -> dict[str, bytes]:
        shown = [line.photo_id for line in report.chosen(stream)]
        found = store.find(shown, ["photo_id", "image"])
        return {photo_id: bytes(row["image"]) for photo_id, row in found.items()}  # type: ignore[call-overload]  # a binary column

    @property
    def _dataset(self) -> str:
        return str(self.work / "dataset.lance")

    def _say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self.began
        self.console.print(f"[dim]{elapsed_s:5.0f} s[/]  {text}")

    @contextlib.contextmanager
    def _busy(self, text: str) -> "Iterator[Status]":
        with self.console.status(text) as status:
            yield status

    def _print(self, table: list[tuple[str, str]]) -> None:
        shown = Table(show_header=False, box=None, padding=(0, 2))
        for what, answer in table:
            shown.add_row(what, answer)
        Console(highlight=False).print(shown)


async def play(*, backbone: str, out: Path, photos: Path | None, seed: int, keep: bool) -> str | None:
    """Run the demonstration in a folder of its own, which is removed at the end.

    Returns:
        Why it is no success, or None.
    """
    log.configure("error")
    work = Path(tempfile.mkdtemp(prefix="gleaner-demo-"))
    try:
        return await Demo(backbone, out, photos, seed, work).run()
    finally:
        if keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
