import asyncio
import json

import pytest
from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.promotion_gate import Comparison, Verdict
from cloud.rollout.canary_analysis import Rules
from cloud.rollout.controller import read, write
from cloud.rollout.releases import read_bundle, release_of
from cloud.rollout.state_machine import Rollout, Step
from schemas.messages import NEITHER, CanaryReport, ServedModel, VersionStats
from schemas.topics import RELEASE
from tests.cli.conftest import gleaner, start
from tests.cloud.bundles import bundle
from tests.conftest import jpeg, running
from tests.device.conftest import NODE


@pytest.fixture
def models(tmp_path):
    """A folder of two bundles."""
    for version in (1, 2):
        bundle(tmp_path, version)
    return tmp_path


def state(models, **changes: object) -> Rollout:
    one, two = (release_of(read_bundle(models / f"{version}.tar"), NODE, "pets") for version in (1, 2))
    steps = [Step("shadow", photos=10), Step("canary", 0.1, 10), Step("all")]
    whole = Rollout(
        champion=one, challenger=two, groups=[[NODE], ["edge-2"]], steps=steps, rules=Rules(), since_ms=1
    )
    return structs.replace(whole, **changes)


def test_what_a_rollout_needs_is_said_before_anything_is_announced(called, models, nowhere):
    """A champion to go back to, a promoted version, and options that make sense."""
    words = ("cloud", "rollout", models / "2.tar", *nowhere)
    assert "expected --champion, or a parent, got none" in called(*words).sentence
    assert "expected a tar" in called(*words, "--champion", models / "7.tar").sentence
    same = Comparison(400, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
    kept = bundle(models, 3, Verdict("keep", 1, ["recall of cat -10.0 points"], same, None, None))
    assert "got keep: recall of cat" in called("cloud", "rollout", kept, *nowhere).sentence
    for option, value in (
        ("--canary-share", "0.1,7"),
        ("--canary-share", "0"),
        ("--shadow-photos", "-1"),
        ("--stage-s", "inf"),
        ("--nodes", "Edge 1"),
    ):
        assert called(*words, option, value).code == 2
    words = (*words, "--champion", models / "1.tar")
    assert "expected another version, got 2 too" in called(*words, "--champion", models / "2.tar").sentence
    assert "expected each node in one group" in called(*words, "--nodes", "a,b", "--nodes", "b").sentence
    assert "of length <= 2048" in called(*words, "--url", "x" * 3000).sentence
    assert "expected an unencrypted Ed25519" in called(*words, "--signing-key", models / "none").sentence
    assert not list(models.glob("rollout-*.json"))


def test_a_rollout_that_is_over_is_not_begun_again(called, models, nowhere):
    """The command says how it ended, each time with the same exit code, and asks no broker."""
    words = ("cloud", "rollout", models / "2.tar", *nowhere)
    write(models / "rollout-2.json", state(models, phase="finished", over=True, group=1))
    done = called(*words)
    assert (done.code, done.out) == (0, "version 2 is out on edge-1, edge-2\n")
    write(models / "rollout-2.json", state(models, phase="returned", over=True, reason="it failed"))
    done = called(*words)
    assert done.code == 1
    assert (
        done.sentence
        == "gleaner cloud rollout: version 2: expected to do as well as the champion, got it failed"
    )


async def test_a_rollout_begins_as_its_options_say(address, at, models):
    """Groups, stages, shares and rules are in its file, and the first group hears of the first stage."""
    listener = Bus(address, transient_client_id("listener"))
    releases = listener.subscribe(RELEASE)
    async with running(listener), asyncio.timeout(40):
        words = ("--nodes", "edge-1,edge-2", "--nodes", "edge-3", "--shadow-photos", "5", "--stage-s", "0")
        more = (
            "--watch-s",
            "7",
            "--canary-share",
            "0.2",
            "--champion",
            models / "1.tar",
            "--dataset",
            models / "none",
        )
        process = await start("cloud", "rollout", models / "2.tar", *words, *more, *at)
        told = [(await releases.queue.get()).message() for _ in range(2)]
        process.terminate()
        out, _ = await process.communicate()
    assert {(release.node, release.stage, release.baseline) for release in told} == {
        ("edge-1", "shadow", 1),
        ("edge-2", "shadow", 1),
    }
    assert b"the same command goes on from here" in out
    assert b"without audits: " in out
    kept = read(models / "rollout-2.json")
    assert kept.groups == [["edge-1", "edge-2"], ["edge-3"]]
    assert kept.steps == [Step("shadow", photos=5), Step("canary", 0.2, 200), Step("all")]
    assert kept.rules == Rules(stage_s=0, watch_s=7)
    assert kept.began_ms == kept.since_ms > 0


@pytest.fixture
def dataset(tmp_path):
    """A dataset with five audited photos of version 1, three right and one of neither, and one of 2."""
    store = Store.open(tmp_path / "dataset")
    rows = [
        Row(
            photo_id=f"{number:032x}",
            image=jpeg(number),
            width=160,
            height=120,
            received_at_ms=1,
            node=NODE,
            device="pi-1",
            lane="audit",
            edge_label="cat",
            confidence=0.7,
            model="pets",
            model_version=1 + number // 5,
        )
        for number in range(6)
    ]
    store.upsert(rows)
    truth = ("cat", "cat", "cat", "dog", NEITHER, NEITHER)
    for row, label in zip(rows, truth, strict=True):
        store.label([Label(photo_id=row.photo_id, label=label, by="ann", at_ms=1)])
    return tmp_path / "dataset"


async def test_status_shows_fleet_rollout_and_accuracy(address, at, models, dataset):
    """A table for people and one object for programs: handlers, trials, rollout, audits and interval."""
    write(models / "rollout-2.json", state(models, step=1))
    trial = CanaryReport(
        stage="canary",
        champion=VersionStats(version=1, answered=90),
        challenger=VersionStats(version=2, answered=12, failed=3),
        compared=10,
        disagreed=4,
        since_ms=1,
    )
    one, two, further = (
        Bus(address, transient_client_id(name), presence=Presence(node, name))
        for node, name in ((NODE, "edge"), ("edge-2", "edge"), (NODE, "edge-2"))
    )
    one.counters.add("sample.kept", 5)
    one.counters.add("sample.accepted", 3)
    one.counters.add("sample.answered", 2)
    words = ("cloud", "status", "--models", models, "--dataset", dataset, *at)
    async with running(one, further):
        async with running(two):
            served = ServedModel(name="pets", version=1, state="available")
            await one.report(model=served, canary=trial)
        whole = json.loads((await gleaner(*words, "--json")).out)
        shown = (await gleaner(*words)).out
    first, beside, second = whole["nodes"]
    assert (first["node"], first["state"], first["model"]["version"]) == (NODE, "online", 1)
    assert (beside["node"], beside["name"], beside["state"]) == (NODE, "edge-2", "online")
    assert (first["trial"]["stage"], first["trial"]["compared"]) == ("canary", 10)
    assert first["samples_waiting"] == 6
    assert (second["node"], second["state"]) == ("edge-2", "offline")
    assert (whole["rollout"]["phase"], whole["rollout"]["step"]) == ("running", 1)
    accuracy, unknown = whole["accuracy"]
    assert (accuracy["version"], accuracy["photos"], accuracy["right"]) == (1, 4, 3)
    assert accuracy["low"] < 0.75 < accuracy["high"]
    assert accuracy["neither"] == 1
    assert (unknown["version"], unknown["photos"], unknown["neither"]) == (2, 0, 1)
    assert unknown["accuracy"] is unknown["low"] is unknown["high"] is None
    assert whole["labels"] == {"cat": 3, "dog": 1, "neither": 2}
    facts = (
        "pets 1 available",
        "canary for 10%",
        "version 2 in place of 1",
        "75.0%",
        "1 (20.0%)",
        "1 (100.0%)",
    )
    for words in (*facts, f"{NODE} edge-2", "Labels by people: 3 cat, 1 dog; 2 neither"):
        assert words in shown


async def test_status_of_nothing_is_no_error(at, tmp_path):
    """No node, no rollout, no dataset: an empty table, and a line that says so."""
    words = ("--models", tmp_path, "--dataset", tmp_path / "none", "--wait", "0.1")
    done = await gleaner("cloud", "status", *words, "--json", *at)
    whole = json.loads(done.out)
    assert whole.pop("away").endswith("expected a dataset, got none there")
    assert whole == {"nodes": [], "rollout": None, "accuracy": [], "labels": {}}
    done = await gleaner("cloud", "status", *words, *at)
    assert done.code == 0
    assert "No audits: table" in done.out


async def test_status_shows_the_fleet_while_the_dataset_is_away(address, at, models, dataset):
    """Nodes and rollout are there, and a line says what is not."""
    for file in (dataset / "data").iterdir():
        file.unlink()
    write(models / "rollout-2.json", state(models, step=1))
    words = ("cloud", "status", "--models", models, "--dataset", dataset, *at)
    async with running(Bus(address, transient_client_id(NODE), presence=Presence(NODE, "edge"))):
        done = await gleaner(*words)
    assert done.code == 0
    for said in (NODE, "version 2 in place of 1", "canary for 10%", "No audits: table", "to be readable"):
        assert said in done.out
