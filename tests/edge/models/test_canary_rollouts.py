"""Versions on trial, end to end: a real broker, a real model server, an edge between them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from msgspec import structs

from bus.mqtt.presence import Presence
from edge.config import EdgeConfig
from edge.serving.client import Predictor
from edge.serving.traffic_split import CALLS_NEEDED, Plan
from schemas.messages import VersionStats
from tests.conftest import eventually
from tests.nodes import (
    Observer,
    edge_config,
    edge_running,
    enveloped,
    photo,
    photo_id,
    station,
    truncated,
)
from tests.serving import ModelServer, place
from tests.trials import (
    NUMBERS,
    look_often,
    release,
    said,
    serving_one_at_a_time,
    told,
    trial,
    with_a_model_of_its_own,
)

DEVICES = tuple(f"pi-{number}" for number in range(8))


@pytest.fixture(scope="module")
def trial_serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model server that serves one model at a time."""
    with serving_one_at_a_time(tmp_path_factory.mktemp("trials")) as server:
        yield server


@pytest.fixture(autouse=True)
def watchful(monkeypatch) -> None:
    """Edges look more often than others."""
    look_often(monkeypatch)


@pytest.fixture
async def config(address, trial_serving, tmp_path) -> EdgeConfig:
    """An edge with a model of this test alone."""
    return await with_a_model_of_its_own(address, trial_serving, tmp_path)


@pytest.fixture
def base(config) -> Path:
    """Where that model's versions are."""
    return Path(config.models_dir) / config.model


@asynccontextmanager
async def asking(seen: Observer) -> AsyncIterator[list[str]]:
    """Send photos of several devices all the time; yields the devices in order, all answered at the end."""
    sent: list[str] = []

    async def send() -> None:
        while not enough.is_set():
            number, device = next(NUMBERS), DEVICES[len(sent) % len(DEVICES)]
            sent.append(device)
            await seen.send(enveloped(number, photo(number, "red"), device), device)
            await eventually(lambda: len(sent) - answered() < 6)

    def answered() -> int:
        return sum(len(seen.final(device)) for device in DEVICES)

    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        yield sent
        enough.set()
        await eventually(lambda: answered() == len(sent))


async def test_g6_in_shadow_the_challenger_is_compared_and_never_answers(config, base, bundles):
    """Every answer is the champion's; the Status says how often the challenger would have differed."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1)
        assert (await told(seen, "model.tried")).facts["stage"] == "shadow"
        for _ in range(CALLS_NEEDED):
            assert await said(seen) == ("cat", 1)
        await eventually(lambda: trial(seen) is not None and trial(seen).compared >= CALLS_NEEDED)
        found = trial(seen)
        assert (found.stage, found.champion.version, found.challenger.version) == ("shadow", 1, 2)
        assert found.disagreed == found.compared == found.challenger.answered
        assert found.champion.answered >= CALLS_NEEDED
        assert found.challenger.failed == found.champion.failed == 0
        assert found.challenger.p95_ms > 0
        assert seen.newest().model.version == 1
        async with Predictor(config.serving, config.model) as predictor:
            assert (await predictor.served(2)).state == "available"


async def test_a_canary_answers_the_devices_of_its_share(config, bundles):
    """Which devices is decided by a hash; photos of both kinds in one batch each get their version."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=0.5, baseline=1)
        await told(seen, "model.tried")
        plan = Plan("canary", 0.5, 1, 2, 0)
        assert {plan.tries(device) for device in DEVICES} == {True, False}
        answers = await asyncio.gather(*(said(seen, device) for device in DEVICES))
        assert answers == [("dog", 2) if plan.tries(device) else ("cat", 1) for device in DEVICES]
        await eventually(lambda: trial(seen) is not None and trial(seen).compared >= 4)
        assert trial(seen).challenger.answered >= sum(map(plan.tries, DEVICES))
        assert trial(seen).disagreed == trial(seen).compared


async def test_g6_what_the_challenger_fails_the_champion_answers(config, bundles):
    """A canary that fails its calls costs no answer, and is counted; a bad photo is not its fault."""
    async with station(config) as seen:
        await release(seen, config, bundles["picky"], 2, stage="canary", share=1.0, baseline=1)
        await told(seen, "model.tried")
        for _ in range(3):
            assert await said(seen) == ("cat", 1)
        await eventually(lambda: trial(seen) is not None and trial(seen).challenger.failed >= 3)
        failed = trial(seen).challenger.failed
        assert trial(seen).challenger.answered == trial(seen).champion.failed == 0
        await seen.send(enveloped(1, truncated(photo(1)), "pi-9"), "pi-9")
        assert (await seen.answer(photo_id(1), "pi-9")).code == "corrupt-image"
        assert await said(seen) == ("cat", 1)
        await eventually(lambda: trial(seen).challenger.failed > failed)
        assert {result.status for result in seen.results} == {"ok", "rejected"}


# What is released, and the Event that says why there is no trial of it.
NO_TRIAL = [
    ("swapped", {"baseline": 7}, "model.refused", "expected version 7 in service, got 1"),
    ("swapped", {"baseline": 2}, "model.refused", "expected version 2 in service"),
    ("swapped", {}, "model.refused", "the version beside which it is tried"),
    ("broken", {"baseline": 1}, "model.failed", "to serve beside version 1"),
    ("flat", {"baseline": 1}, "model.failed", "shape"),
    ("swapped", {"baseline": 1, "sha256": "0" * 64}, "model.failed", "sha256"),
]


async def test_g6_what_cannot_be_tried_leaves_all_as_it_was(config, base, bundles):
    """A node without the champion refuses, a bad bundle fails; each says so and answers as before."""
    async with station(config) as seen, asking(seen):
        numbers = {"model.refused": count(), "model.failed": count()}
        for kind, changes, event, why in NO_TRIAL:
            await release(seen, config, bundles[kind], 2, stage="canary", **changes)
            assert why in (await told(seen, event, next(numbers[event]))).reason
            assert [path.name for path in base.iterdir()] == ["1"], why
    assert {(one.label, one.model_version) for one in seen.results} == {("cat", 1)}
    assert trial(seen) is None


async def test_no_device_of_the_champion_waits_for_the_challenger(config, bundles, monkeypatch):
    """Those who share a batch have their next turn when their own version has answered."""
    gates, held = {None: asyncio.Event(), 1: asyncio.Event(), 2: asyncio.Event()}, []

    class Gated(Predictor):
        async def predict(self, images, version=None, *, timeout_s=None):
            held.append(version)
            await gates[version].wait()
            return await super().predict(images, version)

    monkeypatch.setattr("edge.service.Predictor", Gated)
    plan = Plan("canary", 0.5, 1, 2, 0)
    canary = next(device for device in DEVICES if plan.tries(device))
    other, *more = [device for device in DEVICES if not plan.tries(device)]
    for gate in gates.values():
        gate.set()
    async with station(config) as seen, asyncio.TaskGroup() as tasks:
        await seen.send(enveloped(1, photo(1)))
        await seen.answer(photo_id(1))
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=0.5, baseline=1)
        await told(seen, "model.tried")
        for gate in gates.values():
            gate.clear()
        held.clear()
        for calls in range(config.calls):
            tasks.create_task(said(seen, more[calls]))
            await eventually(lambda wanted=calls + 1: len(held) == wanted)
        slow, quick = (tasks.create_task(said(seen, device)) for device in (canary, other))
        await seen.send(
            enveloped(1, photo(1))
        )  # answered from the record, when the others wait for their turn
        await eventually(lambda: len(seen.results) == 2)
        gates[1].set()
        assert await quick == ("cat", 1)
        assert await said(seen, other) == ("cat", 1)
        assert not slow.done()
        gates[2].set()
        assert await slow == ("dog", 2)


async def test_the_status_says_what_the_version_in_service_did(config, base, monkeypatch):
    """Photos that it classified, and calls that it failed for which no photo is to blame."""
    monkeypatch.setitem(Presence.__init__.__kwdefaults__, "every_s", 0.1)

    def serving(seen: Observer) -> VersionStats:
        return seen.newest().serving or VersionStats(version=0)

    async with station(config) as seen:
        await eventually(lambda: serving(seen).version == 1)
        for _ in range(5):
            assert await said(seen) == ("cat", 1)
        await eventually(lambda: (serving(seen).answered, serving(seen).failed) == (5, 0))
        place("refusing", base, 2)
        await eventually(lambda: serving(seen).version == 2)
        await seen.send(enveloped(10**6, photo(10**6, "red"), "pi-9"), "pi-9")
        await eventually(lambda: serving(seen).failed >= 2)
        assert serving(seen).answered == 0


async def test_without_a_models_folder_there_is_no_trial(config, bundles):
    """Where somebody else places the models, an Event says that the edge cannot."""
    async with station(structs.replace(config, models_dir=None)) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1)
        assert "expected models_dir" in (await told(seen, "model.refused")).reason


async def test_g6_no_request_fails_from_shadow_to_all_and_back(config, base, bundles):
    """Under load: shadow, canary, a larger one, all, the next version on trial, and back from there."""
    async with station(config) as seen, asking(seen) as sent:

        async def heard(version: int, stages: int) -> None:
            """Wait until the trial of a version is reported for the n-th time."""
            await told(seen, "model.tried", stages)
            await eventually(lambda: trial(seen) is not None and trial(seen).challenger.version == version)
            await eventually(lambda: trial(seen).compared > 0)

        stages = count()
        for plan in ({"stage": "shadow"}, {"stage": "canary", "share": 0.5}, {"stage": "canary"}):
            await release(seen, config, bundles["swapped"], 2, baseline=1, **plan)
            await heard(2, next(stages))
        await release(seen, config, bundles["swapped"], 2)
        assert (await told(seen, "model.available")).facts["version"] == 2
        assert await said(seen) == ("dog", 2)
        await eventually(lambda: trial(seen) is None)
        await release(seen, config, bundles["straight"], 3, stage="canary", share=0.5, baseline=2)
        await heard(3, next(stages))
        await release(seen, config, bundles["swapped"], 2)
        await eventually(lambda: trial(seen) is None)
        assert await said(seen) == ("dog", 2)
        await eventually(lambda: sorted(path.name for path in base.iterdir()) == ["1", "2"])
    assert len(sent) > 50
    assert {result.status for result in seen.results} == {"ok"}
    wanted = {("cat", 1), ("dog", 2), ("cat", 3)}
    assert {(one.label, one.model_version) for one in seen.results} == wanted


async def test_g6_a_trial_goes_on_after_a_restart_of_the_edge(config, base, bundles, tmp_path):
    """From the retained release and what is on disk, without fetching; meanwhile the champion answers."""
    bundle = tmp_path / "moved.tar"
    bundle.write_bytes(bundles["swapped"].read_bytes())
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            where = {"url": bundle.as_uri()}
            await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1, **where)
            await told(seen, "model.tried")
        await seen.status("offline")
        bundle.unlink()
        await seen.send(enveloped(1, photo(1, "red")))
        async with edge_running(config):
            await told(seen, "model.tried", 1)
            assert (await seen.answer(photo_id(1))).model_version == 1
            assert await said(seen) == ("cat", 1)
            await eventually(lambda: trial(seen) is not None and trial(seen).compared > 0)
            await release(seen, config, bundles["swapped"], 2, **where)
            assert (await told(seen, "model.available")).facts["version"] == 2
            assert await said(seen) == ("dog", 2)


async def test_g6_a_trial_goes_on_after_a_restart_of_the_model_server(
    address, own_serving, bundles, tmp_path
):
    """A server that starts anew serves the champion alone; the edge tells it of the challenger again."""
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=1.0, baseline=1)
        await told(seen, "model.tried")
        assert await said(seen) == ("dog", 2)
        own_serving.kill()
        await asyncio.to_thread(own_serving.start)
        assert (await said(seen))[0] in {"cat", "dog"}
        async with Predictor(config.serving, config.model) as predictor:
            await eventually(lambda: trial(seen) is not None)
            assert (await predictor.served()).version == 2
        assert await said(seen) == ("dog", 2)
        assert trial(seen).challenger.failed == 0
        await release(seen, config, bundles["straight"], 1)
        await eventually(lambda: trial(seen) is None)
        assert await said(seen) == ("cat", 1)
