"""Rules of cloud/retraining/loop.py, on a real broker and dataset, with stand-in programs for trainings."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.config import Broker
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.promotion_gate import Comparison, Verdict
from cloud.registry.model_card import Card
from cloud.retraining import loop
from cloud.retraining.config import TrainerConfig
from cloud.retraining.lock import BusyError, one_at_a_time
from cloud.retraining.loop import Plan
from cloud.retraining.triggers import Triggers
from schemas.errors import PermanentError
from tests.cloud.bundles import card
from tests.conftest import eventually
from tests.nodes import Observer, photo_id

# Writes the next version's card once the file `go` is there, and notes that it ran, alone or not.
TRAINING = """
import os, sys, time, pathlib
models = pathlib.Path(sys.argv[1])
running = models.parent / "running"
running.mkdir(exist_ok=True)
mine = running / str(os.getpid())
mine.touch()
with (models.parent / "ran").open("a") as ran:
    print(len(list(running.iterdir())), file=ran, flush=True)
while not (models.parent / "go").exists():
    time.sleep(0.01)
version = 1 + max([int(path.name) for path in models.glob("[0-9]*")], default=0)
content = (models.parent / "card.json").read_text().replace('"version":0', f'"version":{version}')
(models / str(version) / "assets.extra").mkdir(parents=True)
(models / str(version) / "assets.extra" / "model.json").write_text(
    content.replace('"dataset_version":null', f'"dataset_version":{sys.argv[2]}')
)
mine.unlink()
"""


class Site:
    """A dataset, a folder of models, and what trainers say on the broker."""

    def __init__(self, folder: Path, address: Broker, observer: Observer) -> None:
        self.folder = folder
        self.store = Store.open(folder / "dataset")
        self.observer = observer
        self.address = address
        (folder / "training.py").write_text(TRAINING)
        self.verdict(None)

    def verdict(self, decision: str | None) -> None:
        """Decide what the gate will say."""
        same = Comparison(9, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
        said = decision and Verdict(decision, 1, ["for a reason"], same, None, None)
        content = msgspec.structs.replace(card(0, said), created_at="2026-01-01T00:00:00+00:00")
        (self.folder / "card.json").write_bytes(msgspec.json.encode(content))

    def config(self, name: str = "trainer", **fields: object) -> TrainerConfig:
        triggers = Triggers(labels=2, cool_down_s=0.0)
        given = {"every_s": 0.05, "triggers": triggers, "dataset": str(self.folder / "dataset")} | fields
        return TrainerConfig(name=name, broker=self.address, models=str(self.folder / "models"), **given)

    def plan(self, *steps: list[str], **fields: object) -> Plan:
        training = [sys.executable, self.folder / "training.py", self.folder / "models"]
        return Plan(steps or ([*map(str, training), str(self.store.version)],), **fields)

    def label(self, *numbers: int) -> None:
        """Let a person label photos that are new."""
        rows = [
            Row(photo_id=photo_id(n), image=b"x", width=1, height=1, received_at_ms=1, edge_label="cat")
            for n in numbers
        ]
        self.store.upsert(rows)
        self.store.label([Label(photo_id=row.photo_id, label="cat", by="ann", at_ms=1) for row in rows])

    def release(self, card: Card) -> list[str]:
        """Return a program that notes which version it was given."""
        script = "import sys; print(sys.argv[1], file=open(sys.argv[2], 'a'))"
        return [sys.executable, "-c", script, str(card.version), str(self.folder / "released")]

    @property
    def released(self) -> list[str]:
        path = self.folder / "released"
        return path.read_text().split() if path.exists() else []

    @property
    def ran(self) -> list[str]:
        """For each training that began, how many were running then."""
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.observer.events if event.name.startswith("trainer")]

    def event(self, name: str):
        return next(event for event in self.observer.events if event.event == name)

    @asynccontextmanager
    async def watching(self, name: str = "trainer", *, plan: Plan | None = None, **fields: object):
        """Run a trainer for the length of a block, entered when it is online."""
        task = asyncio.create_task(loop.watch(self.config(name, **fields), plan or self.plan()))
        try:
            await eventually(lambda: task.done() or self.online(name))
            yield
            assert not task.done(), "the trainer ended by itself"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def online(self, name: str) -> bool:
        return any(status.name == name and status.state == "online" for status in self.observer.statuses)


def lose_as_if_killed(models: Path) -> None:
    """Take the lock's descriptor from this process, as the kernel does when a process dies."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink() and descriptor.readlink() == models / ".round.lock":
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), int(descriptor.name))


def free(models: Path) -> bool:
    """Tell whether a round could start now."""
    try:
        with one_at_a_time(models):
            return True
    except BusyError:
        return False


@pytest.fixture
async def site(tmp_path, address):
    async with Observer(address).watching() as observer:
        yield Site(tmp_path, address, observer)


async def test_new_labels_start_exactly_one_round(site):
    """Not before there are enough, not again for the same ones; each round has its two events."""
    site.label(1)
    async with site.watching():
        await asyncio.to_thread(site.label, 2)
        await eventually(lambda: site.ran == ["1"])
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    started, finished = site.event("round.started"), site.event("round.finished")
    assert (started.node, started.name, started.reason) == ("cloud", "trainer", "2 new labels by people")
    assert started.facts == {"trigger": "labels", "labels": 2}
    assert finished.facts["version"] == 1
    async with site.watching("trainer-2"):  # who has seen nothing of that
        await asyncio.to_thread(site.label, 3)
        assert site.ran == ["1"]
        await asyncio.to_thread(site.label, 4)
        await eventually(lambda: site.ran == ["1", "1"])


async def test_a_trainer_outlasts_a_dataset_that_cannot_be_read(site):
    """Its Status says so meanwhile; when the files are back, it goes on."""
    site.label(1)
    (site.folder / "go").touch()
    data = site.folder / "dataset" / "data"
    async with site.watching():
        data.rename(data.with_name("away"))
        await eventually(lambda: any("cannot be read" in str(s.reason) for s in site.observer.statuses))
        data.with_name("away").rename(data)
        await asyncio.to_thread(site.label, 2)
        await eventually(lambda: "round.finished" in site.events)


async def test_two_watchers_never_train_at_once(site):
    """Whoever is first trains; the other finds nothing left to do."""
    site.label(1, 2)
    plan = site.plan()
    async with site.watching("trainer", plan=plan), site.watching("trainer-2", plan=plan):
        await eventually(lambda: len(site.ran) == 1)
        with pytest.raises(BusyError, match="expected no round under way, got one"):
            await loop.play_once(site.config("trainer-3"), plan)
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    assert site.ran == ["1"]
    assert Counter(site.events) == {"round.started": 1, "round.finished": 1}


async def test_a_killed_round_is_started_again(site):
    """What killed it is said, and the next look finds the same reason."""
    site.label(1, 2)
    async with site.watching():
        await eventually(lambda: len(site.ran) == 1)
        (training,) = (site.folder / "running").iterdir()
        os.kill(int(training.name), signal.SIGKILL)
        training.unlink()
        await eventually(lambda: len(site.ran) == 2)
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    assert site.events == ["round.started", "round.failed", "round.started", "round.finished"]
    assert "got code -9" in site.event("round.failed").reason


async def test_nobody_trains_beside_what_a_killed_trainer_left(site):
    """The lock lives as long as the program that it was given to, not as the trainer."""
    site.label(1, 2)
    async with site.watching():
        await eventually(lambda: len(site.ran) == 1)
        lose_as_if_killed(site.folder / "models")
        assert not free(site.folder / "models")
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
        await eventually(lambda: free(site.folder / "models"))
    assert site.ran == ["1"]


async def test_a_failed_round_says_its_last_words_and_waits(site):
    """The pause after a round holds for one that failed; a program's last line is the reason."""
    site.label(1, 2)
    plan = site.plan([sys.executable, "-c", "print('almost'); raise SystemExit('no memory')"])
    triggers = Triggers(labels=2, cool_down_s=3600.0)
    async with site.watching(plan=plan, triggers=triggers):
        await eventually(lambda: "round.failed" in site.events)
        await asyncio.to_thread(site.label, 3)
    assert site.events == ["round.started", "round.failed"]
    assert site.event("round.failed").reason.endswith("expected to succeed, got code 1: no memory")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ([sys.executable, "-c", ""], "expected a new version"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "expected to end within 0.2 s"),
        (["/no/such/program"], "No such file"),
    ],
)
async def test_a_round_that_makes_nothing_has_failed(site, program, words):
    """A program that makes no version, takes too long or is not there; nothing goes on running."""
    with pytest.raises(PermanentError, match="round: expected to succeed"):
        await loop.play_once(site.config(round_s=0.2), Plan([program]))
    await eventually(lambda: "round.failed" in site.events)
    assert words in site.event("round.failed").reason
    assert site.event("round.started").facts == {"trigger": "hand"}


@pytest.mark.parametrize(("decision", "handed"), [("promote", True), ("keep", False), (None, True)])
async def test_what_the_gate_lets_pass_is_handed_over(site, decision, handed):
    """The bundle of the new version goes to the release; the champion's does not go again."""
    (site.folder / "go").touch()
    site.verdict(decision)

    made = await loop.play_once(site.config(), site.plan(release=site.release))
    assert made.version == 1
    assert site.released == (["1"] if handed else [])
    await eventually(lambda: "round.finished" in site.events)
    assert site.event("round.finished").facts.get("decision") == decision


@pytest.mark.parametrize("parent", [None, 1])
async def test_a_rollout_that_was_broken_off_goes_on(site, parent):
    """A trainer that starts hands the version in service over again, if there is one to go back to."""
    folder = site.folder / "models" / "2" / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "model.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(card(2), parent=parent)))
    async with site.watching(plan=site.plan(release=site.release)):
        await asyncio.to_thread(site.label, 1, 2)
        await eventually(lambda: site.ran == ["1"])
    assert site.released == ([] if parent is None else ["2"])


async def test_a_rollout_that_cannot_go_on_is_told_once(site):
    """It is tried again at each look, as while a person brings out another version; only news is told."""
    folder = site.folder / "models" / "2" / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "model.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(card(2), parent=1)))
    busy = "import sys; print(1, file=open(sys.argv[1], 'a')); raise SystemExit('busy')"
    program = [sys.executable, "-c", busy, str(site.folder / "released")]
    async with site.watching(plan=site.plan(release=lambda _: program)):
        await eventually(lambda: len(site.released) > 3)
    assert site.events == ["release.failed"]


async def test_a_rollout_may_take_longer_than_a_step_of_a_round(site):
    """It waits for photos and nodes; the limit is that of a training."""
    training = card(1)
    folder = site.folder / "models" / "1" / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "model.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(training, parent=9)))
    slow = f"import time, pathlib; time.sleep(0.5); pathlib.Path({str(site.folder / 'out')!r}).touch()"
    plan = site.plan(release=lambda _: [sys.executable, "-c", slow])
    async with site.watching(plan=plan, round_s=0.2):
        await eventually((site.folder / "out").exists)
    assert "release.failed" not in site.events


async def test_a_release_that_fails_is_told(site):
    """The round has finished, and its version waits to be released by hand."""
    (site.folder / "go").touch()
    plan = site.plan(release=lambda _: [sys.executable, "-c", "raise SystemExit('no node')"])
    assert (await loop.play_once(site.config(), plan)).version == 1
    await eventually(lambda: "release.failed" in site.events)
    assert site.event("release.failed").facts == {"version": 1}


@pytest.mark.parametrize("decision", ["promote", "keep"])
async def test_a_round_ends_with_the_tuning(site, decision):
    """After the release, and also where there is nothing to release."""
    (site.folder / "go").touch()
    site.verdict(decision)
    script = "import sys; print(sys.argv[2], file=open(sys.argv[1], 'a'))"
    program = [sys.executable, "-c", script, str(site.folder / "followed")]
    plan = site.plan(release=lambda bundle: [*program, "released"], tune=[*program, "tuned"])
    await loop.play_once(site.config(), plan)
    followed = (site.folder / "followed").read_text().split()
    assert followed == (["released", "tuned"] if decision == "promote" else ["tuned"])


async def test_a_tuning_that_fails_is_told(site):
    """The round has finished all the same."""
    (site.folder / "go").touch()
    plan = site.plan(tune=[sys.executable, "-c", "raise SystemExit('no broker')"])
    assert (await loop.play_once(site.config(), plan)).version == 1
    await eventually(lambda: "policy.failed" in site.events)
    assert site.events == ["round.started", "round.finished", "policy.failed"]
    assert site.event("policy.failed").reason.endswith("no broker")
    assert site.event("policy.failed").facts == {"version": 1}
