"""Rules of `gleaner cloud rollout` and `gleaner cloud status`."""

import asyncio
import json
import urllib.request

import pytest
from msgspec import structs

from bus.broker.process import free_port
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.registry import Registry
from cloud.registry.rollout_state import Rollout, Rules, Step
from cloud.rollout.releases import release_of
from cloud.rollout.steering import is_open
from schemas.class_names import NEITHER
from schemas.messages import CanaryReport, ServedModel, VersionStats
from schemas.topics import RELEASE, STEERING
from tests.cli.conftest import gleaner, start
from tests.cloud.bundles import bundle
from tests.conftest import DEADLINE_S, jpeg, running
from tests.device.conftest import NODE


@pytest.fixture
def models(tmp_path):
    """Make a folder of two bundles."""
    for version in (1, 2):
        bundle(tmp_path, version)
    return tmp_path


def state(models, **changes: object) -> Rollout:
    one, two = (release_of(Registry(models).bundle(version), NODE, "pets") for version in (1, 2))
    steps = [Step("shadow", photos=10), Step("canary", 0.1, 10), Step("all")]
    whole = Rollout(
        champion=one, challenger=two, groups=[[NODE], ["edge-2"]], steps=steps, rules=Rules(), since_ms=1
    )
    return structs.replace(whole, **changes)


def test_a_rollout_checks_its_options_before_anything_is_published(called, models, nowhere):
    """It needs a champion to roll back to, a promoted version and valid options."""
    words = ("cloud", "rollout", models / "2.tar", *nowhere)
    assert "version 2 has no parent to roll back to" in called(*words).sentence
    assert "cannot read bundle" in called(*words, "--champion", models / "7.tar").sentence
    same = Comparison(400, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
    kept = bundle(models, 3, Verdict("keep", 1, ["recall of cat -10.0 points"], same, None, None))
    assert "keep: recall of cat" in called("cloud", "rollout", kept, *nowhere).sentence
    for option, value in (
        ("--canary-share", "0.1,7"),
        ("--canary-share", "0"),
        ("--shadow-photos", "-1"),
        ("--stage-s", "inf"),
        ("--nodes", "Edge 1"),
    ):
        assert called(*words, option, value).code == 2
    words = (*words, "--champion", models / "1.tar")
    assert "version 2 is challenger and champion" in called(*words, "--champion", models / "2.tar").sentence
    assert "expected each node in one group" in called(*words, "--nodes", "a,b", "--nodes", "b").sentence
    assert "of length <= 2048" in called(*words, "--url", "x" * 3000).sentence
    assert "expected an unencrypted Ed25519" in called(*words, "--signing-key", models / "none").sentence
    assert not list(models.glob("rollout-*.json"))


def test_an_ended_rollout_is_not_started_again(called, models, nowhere):
    """The command prints the outcome, each time with the same exit code, without a broker."""
    words = ("cloud", "rollout", models / "2.tar", *nowhere)
    Registry(models).rollout_file(2).write(state(models, phase="finished", announced=True, group=1))
    done = called(*words)
    assert (done.code, done.out) == (0, "version 2 is released to edge-1, edge-2\n")
    skipped = state(models, phase="finished", announced=True, group=1, skipped=["edge-2"])
    Registry(models).rollout_file(2).write(skipped)
    assert called(*words).out.endswith("could not try it: edge-2\n")
    Registry(models).rollout_file(2).write(
        state(models, phase="returned", announced=True, reason="it failed")
    )
    done = called(*words)
    assert done.code == 1
    assert done.sentence == "gleaner cloud rollout: version 2 was rolled back: it failed"


def test_a_version_that_was_rolled_back_is_rolled_out_again_by_force(called, models, nowhere):
    """As the help of --force states: a new state replaces it; a finished rollout stays finished."""
    words = ("cloud", "rollout", models / "2.tar", "--champion", models / "1.tar", "--force", *nowhere)
    file = Registry(models).rollout_file(2)
    file.write(state(models, phase="returned", announced=True, reason="it failed", group=1))
    done = called(*words)
    assert done.code == 75, "it continues to the broker"
    again = file.read()
    assert (again.phase, again.group, again.reason) == ("running", 0, None)
    file.write(state(models, phase="finished", announced=True, group=1))
    assert called(*words).out == "version 2 is released to edge-1, edge-2\n"


async def test_a_forced_release_says_what_rollouts_need(at, models):
    """Afterwards nodes serve a version that is not the champion, with which a rollout compares."""
    same = Comparison(400, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
    kept = bundle(models, 3, Verdict("keep", 1, ["recall of cat -10.0 points"], same, None, None), parent=2)
    done = await gleaner("cloud", "release", kept, "--force", *at)
    assert (done.code, done.out) == (0, "version 3 released to edge-1\n")
    assert done.sentence == (
        "released by force: the gate did not promote version 3: keep: recall of cat -10.0 points; nodes can "
        f"try another version in a rollout after 'gleaner cloud release {models}/2.tar'"
    )


def test_a_version_that_was_rolled_back_is_released_by_force_only(called, models, nowhere):
    """The reason is not in the card in the bundle, but in the rollout's state file next to it."""
    Registry(models).rollout_file(2).write(
        state(models, phase="returned", announced=True, reason="it failed")
    )
    words = ("cloud", "release", models / "2.tar", *nowhere)
    refused = called(*words)
    assert refused.sentence.startswith("gleaner cloud release: version 2 was rolled back: it failed")
    assert "--force" in refused.sentence
    assert "rolled back" not in called(*words, "--force").sentence, "it continues to the broker"
    assert "rolled back" not in called("cloud", "release", models / "1.tar", *nowhere).sentence


def test_the_state_of_a_rollout_is_in_the_models_folder_only(called, models, nowhere):
    """Elsewhere no lock would hold, and the registry would not know that the version was rolled back."""
    done = called("cloud", "rollout", models / "2.tar", "--state", models / "other" / "s.json", *nowhere)
    assert done.code == 2


async def test_options_define_the_rollout(address, at, models):
    """Groups, stages, shares and rules are in its file, and the first group gets the first stage."""
    listener = Bus(address, transient_client_id("listener"))
    releases = listener.subscribe(RELEASE)
    async with running(listener), asyncio.timeout(DEADLINE_S):
        words = ("--nodes", "edge-1,edge-2", "--nodes", "edge-3", "--shadow-photos", "5", "--stage-s", "0")
        more = (
            "--bake-time-s",
            "7",
            "--canary-share",
            "0.2",
            "--champion",
            models / "1.tar",
            "--dataset",
            models / "none",
        )
        process = await start("cloud", "rollout", models / "2.tar", *words, *more, *at)
        received = [(await releases.queue.get()).message() for _ in range(2)]
        process.terminate()
        out, _ = await process.communicate()
    assert {(release.node, release.stage, release.baseline) for release in received} == {
        ("edge-1", "shadow", 1),
        ("edge-2", "shadow", 1),
    }
    assert b"the same command continues" in out
    assert b"without audits: " in out
    kept = Registry(models).rollout_file(2).read()
    assert kept.groups == [["edge-1", "edge-2"], ["edge-3"]]
    assert kept.steps == [Step("shadow", photos=5), Step("canary", 0.2, 200), Step("all")]
    assert kept.rules == Rules(stage_s=0, bake_time_s=7)
    assert kept.began_ms == kept.since_ms > 0


async def test_a_running_rollout_has_health_endpoints_and_metrics(address, at, models):
    """As every service: who it is, and whether it is ready; with an address that is free."""
    probes = f"127.0.0.1:{free_port()}"
    words = ("--champion", models / "1.tar", "--dataset", models / "none", "--probes", probes)
    listener = Bus(address, transient_client_id("listener"))
    releases = listener.subscribe(RELEASE)
    async with running(listener), asyncio.timeout(DEADLINE_S):
        process = await start("cloud", "rollout", models / "2.tar", *words, *at)
        await releases.queue.get()  # it is connected, so that its endpoints are there
        page = await asyncio.to_thread(fetch, f"http://{probes}/metrics")
        ready = await asyncio.to_thread(fetch, f"http://{probes}/readyz")
        process.terminate()
        await process.communicate()
    assert 'service_name="rollout"' in page
    assert "gleaner_ready 1.0" in page
    assert ready == "ready\n"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("value", ["8481", "host:", ":8481", "host:70000", "host:port", "host:٣"])
def test_probes_are_an_address(called, models, nowhere, value):
    """Anything else is refused before the rollout begins."""
    done = called(
        "cloud", "rollout", models / "2.tar", "--champion", models / "1.tar", "--probes", value, *nowhere
    )
    assert done.code == 2
    assert "expected HOST:PORT" in done.err
    assert not list(models.glob("rollout-*.json"))


@pytest.fixture
def dataset(tmp_path):
    """Make a dataset: five audited photos of version 1, three correct and one of neither, and one of 2."""
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
            device_group="meters" if number in {2, 3} else "",
            model_variant=("int8", "float32")[number % 2],
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
    Registry(models).rollout_file(2).write(state(models, step=1))
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
    one.counters.add("sample.restored", 5)
    one.counters.add("sample.accepted", 3)
    one.counters.add("sample.answered", 2)
    words = ("cloud", "status", "--models", models, "--dataset", dataset, *at)
    async with running(one, further):
        async with running(two):
            served = ServedModel(name="pets", version=1, state="available")
            await one.report(model=served, canary=trial)
        whole = json.loads((await gleaner(*words, "--json")).out)
        shown = (await gleaner(*words)).out
    first, same_node, second = whole["nodes"]
    assert (first["node"], first["state"], first["model"]["version"]) == (NODE, "online", 1)
    assert (same_node["node"], same_node["name"], same_node["state"]) == (
        NODE,
        "edge-2",
        "online",
    )
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
    (group,) = whole["groups"]
    assert (group["group"], group["version"], group["photos"], group["right"]) == ("meters", 1, 2, 1)
    variants = [(one["version"], one["variant"], one["photos"], one["right"]) for one in whole["variants"]]
    assert variants == [(1, "float32", 2, 1), (1, "int8", 2, 2)]
    assert whole["labels"] == {"cat": 3, "dog": 1, "neither": 2}
    facts = (
        "pets 1 available",
        "canary for 10%",
        "version 2 in place of 1",
        "75.0%",
        "1 (20.0%)",
        "1 (100.0%)",
        "50.0%",
        "Audits of groups of devices",
        "Audits by variant",
        "float32",
    )
    for words in (*facts, f"{NODE} edge-2", "Labels by people: 3 cat, 1 dog; 2 neither"):
        assert words in shown


async def test_status_without_nodes_and_dataset_is_no_error(at, tmp_path):
    """It prints an empty table, and a line that there is no dataset."""
    words = ("--models", tmp_path, "--dataset", tmp_path / "none", "--wait", "0.1")
    done = await gleaner("cloud", "status", *words, "--json", *at)
    whole = json.loads(done.out)
    assert whole.pop("away").startswith("no dataset at")
    assert whole.pop("unforgotten") == []
    assert whole.pop("variants") == []
    nothing = {"nodes": [], "components": [], "rollout": None, "accuracy": [], "groups": [], "labels": {}}
    assert whole == nothing
    done = await gleaner("cloud", "status", *words, *at)
    assert done.code == 0
    assert "No audits: no dataset at" in done.out


async def test_status_shows_the_fleet_if_the_dataset_cannot_be_read(address, at, models, dataset):
    """Nodes and rollout are shown, and a line with the reason instead of the audits."""
    for file in (dataset / "data").iterdir():
        file.unlink()
    Registry(models).rollout_file(2).write(state(models, step=1))
    words = ("cloud", "status", "--models", models, "--dataset", dataset, *at)
    async with running(Bus(address, transient_client_id(NODE), presence=Presence(NODE, "edge"))):
        done = await gleaner(*words)
    assert done.code == 0
    for text in (NODE, "version 2 in place of 1", "canary for 10%", "No audits: table", "cannot be read"):
        assert text in done.out


async def test_a_running_rollout_is_steered_by_a_command(address, at, models, called):
    """The broker retains the order with version, beginning and name; without a rollout it is an error."""
    words = ("cloud", "steer", "pause", "--out", models, "--by", "ann", "--reason", "wait for the vet", *at)
    assert f"no rollout in {models}" in called(*words).sentence
    running_now = state(models, began_ms=1234)
    Registry(models).rollout_file(2).write(running_now)
    assert (await gleaner(*words)).out.startswith("pause of version 2: ordered")
    listener = Bus(address, transient_client_id("listener"))
    orders = listener.subscribe(STEERING)
    async with running(listener), asyncio.timeout(DEADLINE_S):
        order = (await orders.queue.get()).message()
    assert (order.action, order.by, order.reason) == ("pause", "ann", "wait for the vet")
    assert is_open(running_now, order)
    Registry(models).rollout_file(2).write(state(models, phase="finished"))
    assert "the rollout of version 2 is finished" in called(*words).sentence
