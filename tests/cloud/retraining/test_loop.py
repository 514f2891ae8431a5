"""Rules of cloud/retraining/loop.py, with a real broker and dataset and stand-in programs for the steps."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from bus.config import Broker
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.model_card import Card, encode_card
from cloud.registry.registry import Registry, RoundRunningError
from cloud.retraining import loop, step_process
from cloud.retraining.announced import read_announced
from cloud.retraining.config import TrainerConfig
from cloud.retraining.triggers import Triggers
from cloud.rollout.options import RolloutOptions
from schemas.errors import PermanentError
from tests.cloud.bundles import card
from tests.conftest import eventually
from tests.nodes import Observer, photo_id

# Reads a step and runs the script of that name, as the real worker runs the step.
WORKER = """
import json, pathlib, sys
folder, step = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
exec((folder / f"{step['type']}.py").read_text())
"""

# Writes the next version's card once the file `go` exists, and notes how many trainings were running then.
TRAINING = """
import os, time
models = pathlib.Path(step["models"])
running = folder / "running"
running.mkdir(exist_ok=True)
mine = running / str(os.getpid())
mine.touch()
with (folder / "ran").open("a") as ran:
    print(len(list(running.iterdir())), file=ran, flush=True)
while not (folder / "go").exists():
    time.sleep(0.01)
version = 1 + max([int(path.name) for path in models.glob("[0-9]*")], default=0)
card = json.loads((folder / "card.json").read_text()) | {"version": version}
card["dataset_version"] = json.loads((folder / "dataset_version").read_text())
path = models / str(version) / "assets.extra" / "model.json"
path.parent.mkdir(parents=True)
path.write_text(json.dumps(card))
mine.unlink()
"""

# Records the steps after the training and their versions.
FOLLOW_UP = """
print(step["type"], step.get("version", ""), file=(folder / "followed").open("a"))
"""


class Site:
    """A dataset, a models folder, stand-in programs for the steps, and the events on the broker."""

    def __init__(self, folder: Path, address: Broker, observer: Observer) -> None:
        self.folder = folder
        self.store = Store.open(folder / "dataset")
        self.registry = Registry(folder / "models")
        self.observer = observer
        self.address = address
        self.worker = (sys.executable, str(folder / "worker.py"), str(folder))
        (folder / "worker.py").write_text(WORKER)
        self.step("train", TRAINING)
        self.step("release", FOLLOW_UP)
        self.step("tune", FOLLOW_UP)
        self.verdict(None)
        (folder / "dataset_version").write_text(str(self.store.version))

    def step(self, name: str, script: str) -> None:
        """Choose what a step does."""
        (self.folder / f"{name}.py").write_text(script)

    def verdict(self, decision: str | None) -> None:
        """Choose the verdict of the gate on the next version."""
        same = Comparison(9, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
        verdict = decision and Verdict(decision, 1, ["for a reason"], same, None, None)
        content = msgspec.structs.replace(card(0, verdict), created_at="2026-01-01T00:00:00+00:00")
        (self.folder / "card.json").write_bytes(encode_card(content))

    def config(self, name: str = "trainer", **fields: object) -> TrainerConfig:
        triggers = Triggers(labels=2, cool_down_s=0.0)
        given = {
            "every_s": 0.05,
            "triggers": triggers,
            "dataset": str(self.folder / "dataset"),
            "teachers": (),
        }
        given |= {"release": RolloutOptions()} | fields
        return TrainerConfig(name=name, broker=self.address, models=str(self.registry.folder), **given)

    def label(self, *numbers: int) -> None:
        """Store photos with human labels, of two classes."""
        rows = [
            Row(photo_id=photo_id(n), image=b"x", width=1, height=1, received_at_ms=1, edge_label="cat")
            for n in numbers
        ]
        self.store.upsert(rows)
        self.store.label(
            [Label(photo_id=photo_id(n), label=("cat", "dog")[n % 2], by="ann", at_ms=1) for n in numbers]
        )

    def lines(self, name: str) -> list[str]:
        """Return the lines that the steps wrote to a file."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def ran(self) -> list[str]:
        """For each training that began, how many were running then."""
        return self.lines("ran")

    @property
    def released(self) -> list[str]:
        """The version of each release step."""
        return [line.split()[1] for line in self.lines("followed") if line.startswith("release")]

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.observer.events if event.name.startswith("trainer")]

    def event(self, name: str):
        return next(event for event in self.observer.events if event.event == name)

    async def run_one_round(self, name: str = "trainer", **fields: object) -> Card:
        return await loop.run_one_round(self.config(name, **fields), worker=self.worker)

    @asynccontextmanager
    async def watching(self, name: str = "trainer", **fields: object):
        """Run a trainer for the length of a block, entered when it is online."""
        task = asyncio.create_task(loop.run_loop(self.config(name, **fields), worker=self.worker))
        try:
            await eventually(lambda: task.done() or self.online(name))
            yield
            assert not task.done(), "the trainer ended early"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def online(self, name: str) -> bool:
        return any(status.name == name and status.state == "online" for status in self.observer.statuses)


def close_as_if_killed(models: Path) -> None:
    """Close this process's descriptor of the lock, as the kernel does when a process dies."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink() and descriptor.readlink() == models / ".round.lock":
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), int(descriptor.name))


def is_free(registry: Registry) -> bool:
    """Return True if a round could start now."""
    try:
        with registry.round_lock():
            return True
    except RoundRunningError:
        return False


@pytest.fixture
async def site(tmp_path, address):
    async with Observer(address).watching() as observer:
        yield Site(tmp_path, address, observer)


async def test_new_labels_start_exactly_one_round(site):
    """A round starts once enough labels are new, not again for the same labels, and has two events."""
    site.label(1)
    async with site.watching(release=None):
        await asyncio.to_thread(site.label, 2)
        await eventually(lambda: site.ran == ["1"])
        (site.folder / "dataset_version").write_text(str(site.store.version))
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    started, finished = site.event("round.started"), site.event("round.finished")
    assert (started.node, started.name, started.reason) == ("cloud", "trainer", "2 new labels by people")
    assert started.facts == {"trigger": "labels", "labels": 2}
    assert finished.facts["version"] == 1
    async with site.watching("trainer-2", release=None):  # it finds the card of the first round
        await asyncio.to_thread(site.label, 3)
        assert site.ran == ["1"]
        await asyncio.to_thread(site.label, 4)
        await eventually(lambda: site.ran == ["1", "1"])


async def test_a_trainer_survives_a_dataset_that_cannot_be_read(site):
    """Its status is degraded until the files are back; then it continues."""
    site.label(1)
    (site.folder / "go").touch()
    data = site.folder / "dataset" / "data"
    async with site.watching():
        data.rename(data.with_name("away"))
        await eventually(lambda: any(s.state == "degraded" and s.reason for s in site.observer.statuses))
        data.with_name("away").rename(data)
        await asyncio.to_thread(site.label, 2)
        await eventually(lambda: "round.finished" in site.events)


async def test_two_trainers_never_train_at_once(site):
    """The first one trains; the other finds nothing left to do."""
    site.label(1, 2)
    (site.folder / "dataset_version").write_text(str(site.store.version))
    async with site.watching("trainer"), site.watching("trainer-2"):
        await eventually(lambda: len(site.ran) == 1)
        with pytest.raises(RoundRunningError, match="another training round is running"):
            await site.run_one_round("trainer-3")
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    assert site.ran == ["1"]
    assert Counter(site.events) == {"round.started": 1, "round.finished": 1}


async def test_a_killed_training_is_started_again(site):
    """The signal is in the event, and the next look finds the same reason."""
    site.label(1, 2)
    (site.folder / "dataset_version").write_text(str(site.store.version))
    async with site.watching():
        await eventually(lambda: len(site.ran) == 1)
        (training,) = (site.folder / "running").iterdir()
        os.kill(int(training.name), signal.SIGKILL)
        training.unlink()
        await eventually(lambda: len(site.ran) == 2)
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
    assert site.events == ["round.started", "round.failed", "round.started", "round.finished"]
    assert "failed with exit code -9" in site.event("round.failed").reason


async def test_no_round_runs_beside_what_a_killed_trainer_left(site):
    """The lock is held until the step that inherited it ends, even if the trainer was killed."""
    site.label(1, 2)
    (site.folder / "dataset_version").write_text(str(site.store.version))
    async with site.watching():
        await eventually(lambda: len(site.ran) == 1)
        close_as_if_killed(site.registry.folder)
        assert not is_free(site.registry)
        (site.folder / "go").touch()
        await eventually(lambda: "round.finished" in site.events)
        await eventually(lambda: is_free(site.registry))
    assert site.ran == ["1"]


async def test_a_step_that_runs_for_long_says_how_far_it_is(site, monkeypatch):
    """The trainer's log has the step, its time and the last progress of its output."""
    monkeypatch.setattr(step_process, "_REPORT_EVERY_S", 0.05)
    line = '{"event": "step.progress", "step": "embed photos", "done": 300, "total": 1000}'
    (site.folder / "dataset_version").write_text(str(site.store.version))
    site.step("train", f"print({line!r}, flush=True)\n{TRAINING}")
    site.label(1, 2)
    with capture_logs() as logged:
        async with site.watching():
            await eventually(lambda: any(entry.get("at") == "embed photos: 300 of 1000" for entry in logged))
            (site.folder / "go").touch()
            await eventually(lambda: "round.finished" in site.events)
    reports = [entry for entry in logged if entry["event"] == "round.step_running"]
    assert {report["step"] for report in reports if report["at"].startswith("embed")} == {"train"}
    assert reports[0]["running_s"] >= 0


async def test_a_failed_round_reports_the_last_line_and_pauses(site):
    """It pauses after a failed round too; the reason is the last line of the step, at level error."""
    site.label(1, 2)
    site.step("train", "print('almost'); raise SystemExit('no memory')")
    triggers = Triggers(labels=2, cool_down_s=3600.0)
    with capture_logs() as logged:
        async with site.watching(triggers=triggers):
            await eventually(lambda: "round.failed" in site.events)
            await asyncio.to_thread(site.label, 3)
    levels = {entry["event"]: entry["log_level"] for entry in logged}
    assert (levels["round.started"], levels["round.failed"]) == ("info", "error")
    assert site.events == ["round.started", "round.failed"]
    assert site.event("round.failed").reason == "step 'train' failed with exit code 1: no memory"


@pytest.mark.parametrize(
    ("script", "step_timeout_s", "words"),
    [
        ("", 600.0, "the training made no version"),
        ("import time; time.sleep(600)", 0.2, "step 'train' did not end within 0.2 s"),
        (None, 600.0, "No such file"),
    ],
)
async def test_a_round_without_a_new_version_has_failed(site, script, step_timeout_s, words):
    """A training that makes no version, takes too long or cannot be started; nothing keeps running."""
    if script is None:
        site.worker = ("/no/such/program",)
    else:
        site.step("train", script)
    with pytest.raises(PermanentError, match=r"the round failed; see .*round.log"):
        await site.run_one_round(step_timeout_s=step_timeout_s)
    await eventually(lambda: "round.failed" in site.events)
    assert words in site.event("round.failed").reason
    assert site.event("round.started").facts == {"trigger": "hand"}
    assert is_free(site.registry)


async def test_a_version_of_a_step_that_failed_afterwards_counts(site):
    """A step that fails after it added a card has done its work: nothing else would release that version."""
    (site.folder / "go").touch()
    site.step("train", f"{TRAINING}\nraise SystemExit('no tag')")
    made = await site.run_one_round()
    assert made.version == 1
    assert site.released == ["1"]
    await eventually(lambda: "round.finished" in site.events)
    assert "round.failed" not in site.events


async def test_a_teacher_labels_before_the_training(site):
    """The steps run in their order; without teachers there is only the training."""
    (site.folder / "go").touch()
    site.step("teach", "print(*step['backbones'], file=(folder / 'ran').open('a'))")
    await site.run_one_round(teachers=("a", "b"))
    assert site.ran == ["a b", "1"]


@pytest.mark.parametrize(("decision", "released"), [("promote", True), ("keep", False), (None, True)])
async def test_only_a_promoted_version_is_released(site, decision, released):
    """A version that the gate keeps back is not released, and the champion is not released again."""
    (site.folder / "go").touch()
    site.verdict(decision)
    made = await site.run_one_round()
    assert made.version == 1
    assert site.released == (["1"] if released else [])
    await eventually(lambda: "round.finished" in site.events)
    assert site.event("round.finished").facts.get("decision") == decision


@pytest.mark.parametrize("parent", [None, 1])
async def test_an_interrupted_rollout_is_continued(site, parent):
    """A trainer that starts releases the version in service again, if that has a parent to roll back to."""
    site.registry.write_card(msgspec.structs.replace(card(2), parent=parent))
    async with site.watching():
        await asyncio.to_thread(site.label, 1, 2)
        await eventually(lambda: site.ran == ["1"])
    assert site.released == ([] if parent is None else ["2"])


async def test_a_rollout_that_cannot_continue_is_reported_once(site):
    """It is retried at each look, for example while another version is rolled out; only news is an event."""
    site.registry.write_card(msgspec.structs.replace(card(2), parent=1))
    site.step("release", FOLLOW_UP + "raise SystemExit('busy')")
    async with site.watching():
        await eventually(lambda: len(site.released) > 3)
    assert site.events == ["release.failed"]


async def test_a_rollout_has_no_time_limit(site):
    """It waits for photos and nodes; the limit is that of the other steps."""
    site.registry.write_card(msgspec.structs.replace(card(1), parent=9))
    site.step("release", "import time; time.sleep(0.5); (folder / 'out').touch()")
    async with site.watching(step_timeout_s=0.2):
        await eventually((site.folder / "out").exists)
    assert "release.failed" not in site.events


async def test_a_release_that_fails_is_reported(site):
    """The round has finished; its version can still be released with the command."""
    (site.folder / "go").touch()
    site.step("release", "raise SystemExit('no node')")
    assert (await site.run_one_round()).version == 1
    await eventually(lambda: "release.failed" in site.events)
    assert site.event("release.failed").facts == {"version": 1}


@pytest.mark.parametrize("decision", ["promote", "keep"])
async def test_a_round_ends_with_the_tuning(site, decision):
    """Policies are tuned after the release, and also where nothing is released."""
    (site.folder / "go").touch()
    site.verdict(decision)
    await site.run_one_round()
    followed = [line.split()[0] for line in site.lines("followed")]
    assert followed == (["release", "tune"] if decision == "promote" else ["tune"])


async def test_a_tuning_that_fails_is_reported(site):
    """The round has finished anyway."""
    (site.folder / "go").touch()
    site.step("tune", "raise SystemExit('no broker')")
    assert (await site.run_one_round()).version == 1
    await eventually(lambda: "policy.failed" in site.events)
    assert site.events == ["round.started", "round.finished", "policy.failed"]
    assert site.event("policy.failed").reason.endswith("no broker")
    assert site.event("policy.failed").facts == {"version": 1}


async def test_a_step_gets_sigterm_when_the_round_is_cancelled(site):
    """A step can end in order; the lock is free afterwards."""
    site.step(
        "train",
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit((folder / 'terminated').touch()))\n"
        "(folder / 'ran').touch()\n"
        "while True: time.sleep(0.01)",
    )
    task = asyncio.create_task(site.run_one_round())
    await eventually((site.folder / "ran").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (site.folder / "terminated").exists()
    assert is_free(site.registry)


def photograph(site: Site, start: int, shift: float) -> None:
    """Store 60 samples whose embeddings are around `shift`."""
    draw = np.random.default_rng(start)
    rows = [
        Row(
            photo_id=photo_id(n),
            image=b"x",
            width=1,
            height=1,
            received_at_ms=n,
            node="edge-1",
            device="pi-1",
            edge_label="cat",
            model_version=1,
            embedding=(draw.normal(size=8) + shift).astype("<f4").tobytes(),
        )
        for n in range(start, start + 60)
    ]
    site.store.upsert(rows)


async def test_a_drift_alarm_raises_audits_and_waits_for_its_labels(site):
    """It is published once, also by the next trainer; the audit share is raised; labels start the round."""
    photograph(site, 1000, 0.0)
    seen = msgspec.structs.replace(card(1), dataset_version=site.store.version)
    site.registry.write_card(seen)
    site.step("tune", "print(step['audit_share'], file=(folder / 'shares').open('a'))")
    triggers = Triggers(labels=99, cool_down_s=0.0, drift_labels=2)
    async with site.watching(triggers=triggers):
        await asyncio.to_thread(photograph, site, 2000, 3.0)
        await eventually(lambda: read_announced(site.registry).raised)
    async with site.watching("trainer-2", triggers=triggers):
        await asyncio.to_thread(site.label, 2000, 2001)
        await eventually(lambda: "round.started" in site.events)
    assert site.events[:2] == ["drift.detected", "round.started"]
    assert site.event("drift.detected").facts["photos"] == 50
    assert site.event("round.started").facts["trigger"] == "drift"
    assert site.lines("shares") == ["0.1"]


async def test_raising_the_audits_is_tried_until_it_succeeds(site):
    """The alarm is published once, and the failure too."""
    photograph(site, 1000, 0.0)
    site.registry.write_card(msgspec.structs.replace(card(1), dataset_version=site.store.version))
    photograph(site, 2000, 3.0)
    site.step("tune", "(folder / 'shares').open('a').write('x\\n'); raise SystemExit('no broker')")
    async with site.watching(triggers=Triggers(labels=99)):
        await eventually(lambda: len(site.lines("shares")) > 2)
    assert site.events == ["drift.detected", "policy.failed"]


async def test_labels_are_asked_for_once_when_enough_photos_wait(site):
    """Not while fewer photos wait than labels are missing, and not again by the next trainer."""
    rows = [
        Row(
            photo_id=photo_id(n),
            image=b"x",
            width=1,
            height=1,
            received_at_ms=1,
            edge_label="cat",
            lane="hard",
        )
        for n in range(3)
    ]
    site.store.upsert(rows[:1])
    (site.folder / "models").mkdir(exist_ok=True)
    async with site.watching():
        await asyncio.to_thread(site.store.upsert, rows[1:])
        await eventually(lambda: read_announced(site.registry).asked == 0)
    assert site.event("labels.wanted").facts == {"missing": 2, "awaiting": 3}
    async with site.watching("trainer-2"):
        await asyncio.to_thread(site.label, 7, 8)
        await eventually(lambda: "round.started" in site.events)
    assert site.events[:2] == ["labels.wanted", "round.started"]
