"""Shadow and canary stages end to end: a real broker, a real model server, and an edge."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from msgspec import structs

from bus.mqtt.presence import Presence
from edge.config import EdgeConfig
from edge.serving.call_stats import CALLS_NEEDED
from edge.serving.client import Predictor
from edge.serving.traffic_split import CanaryPlan
from schemas.messages import VersionStats
from tests.canaries import (
    NUMBERS,
    canary_report,
    classify,
    nth_event,
    release,
    shorten_intervals,
    single_model_server,
    unique_model_config,
)
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

DEVICES = tuple(f"pi-{number}" for number in range(8))


@pytest.fixture(scope="module")
def canary_serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model server with one model at a time."""
    with single_model_server(tmp_path_factory.mktemp("canaries")) as server:
        yield server


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch) -> None:
    """Edges check often."""
    shorten_intervals(monkeypatch)


@pytest.fixture
async def config(address, canary_serving, tmp_path) -> EdgeConfig:
    """An edge with a model that no other test uses."""
    return await unique_model_config(address, canary_serving, tmp_path)


@pytest.fixture
def base(config) -> Path:
    """The version directories of that model."""
    return Path(config.models_dir) / config.model


@asynccontextmanager
async def photos_sent(seen: Observer) -> AsyncIterator[list[str]]:
    """Send photos during a block, all answered at its end; yields their devices in order."""
    sent: list[str] = []

    async def send() -> None:
        while not stop.is_set():
            number, device = next(NUMBERS), DEVICES[len(sent) % len(DEVICES)]
            sent.append(device)
            await seen.send(enveloped(number, photo(number, "red"), device), device)
            await eventually(lambda: len(sent) - answered() < 6)

    def answered() -> int:
        return sum(len(seen.final(device)) for device in DEVICES)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        yield sent
        stop.set()
        await eventually(lambda: answered() == len(sent))


async def test_g6_a_shadow_challenger_is_compared_and_never_answers(config, base, bundles):
    """Every answer is the champion's; the status counts how often the challenger disagrees."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1)
        assert (await nth_event(seen, "model.tried")).facts["stage"] == "shadow"
        for _ in range(CALLS_NEEDED):
            assert await classify(seen) == ("cat", 1)
        await eventually(
            lambda: canary_report(seen) is not None and canary_report(seen).compared >= CALLS_NEEDED
        )
        report = canary_report(seen)
        assert (report.stage, report.champion.version, report.challenger.version) == ("shadow", 1, 2)
        assert report.disagreed == report.compared == report.challenger.answered
        assert report.champion.answered >= CALLS_NEEDED
        assert report.challenger.failed == report.champion.failed == 0
        assert report.challenger.p95_ms > 0
        assert seen.newest().model.version == 1
        async with Predictor(config.serving, config.model) as predictor:
            assert (await predictor.model_status(2)).state == "available"


async def test_a_canary_answers_its_share_of_the_devices(config, bundles):
    """A hash chooses the devices; in a mixed batch each photo gets the version of its device."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=0.5, baseline=1)
        await nth_event(seen, "model.tried")
        plan = CanaryPlan("canary", 0.5, 1, 2, 0)
        assert {plan.includes(device) for device in DEVICES} == {True, False}
        answers = await asyncio.gather(*(classify(seen, device) for device in DEVICES))
        assert answers == [("dog", 2) if plan.includes(device) else ("cat", 1) for device in DEVICES]
        await eventually(lambda: canary_report(seen) is not None and canary_report(seen).compared >= 4)
        assert canary_report(seen).challenger.answered >= sum(map(plan.includes, DEVICES))
        assert canary_report(seen).disagreed == canary_report(seen).compared


async def test_g6_the_champion_answers_what_the_challenger_fails(config, bundles):
    """A failed call of a canary is counted and loses no answer; a corrupt photo is not its failure."""
    async with station(config) as seen:
        await release(seen, config, bundles["picky"], 2, stage="canary", share=1.0, baseline=1)
        await nth_event(seen, "model.tried")
        for _ in range(3):
            assert await classify(seen) == ("cat", 1)
        await eventually(
            lambda: canary_report(seen) is not None and canary_report(seen).challenger.failed >= 3
        )
        failed = canary_report(seen).challenger.failed
        assert canary_report(seen).challenger.answered == canary_report(seen).champion.failed == 0
        await seen.send(enveloped(1, truncated(photo(1)), "pi-9"), "pi-9")
        assert (await seen.answer(photo_id(1), "pi-9")).code == "corrupt-image"
        assert await classify(seen) == ("cat", 1)
        await eventually(lambda: canary_report(seen).challenger.failed > failed)
        assert {result.status for result in seen.results} == {"ok", "rejected"}


# Bundle, changes of the release, and the event with its reason.
NO_CANARY = [
    ("swapped", {"baseline": 7}, "model.refused", "against version 7: version 1 is in service"),
    ("swapped", {"baseline": 2}, "model.refused", "against version 2: version 1 is in service"),
    ("swapped", {}, "model.refused", "names no baseline version"),
    ("broken", {"baseline": 1}, "model.failed", "failed as the challenger of version 1"),
    ("flat", {"baseline": 1}, "model.failed", "shape"),
    ("swapped", {"baseline": 1, "sha256": "0" * 64}, "model.failed", "sha256"),
]


async def test_g6_a_failed_canary_changes_nothing(config, base, bundles):
    """An event has the reason, the folder is unchanged, and the champion answers."""
    async with station(config) as seen, photos_sent(seen):
        numbers = {"model.refused": count(), "model.failed": count()}
        for kind, changes, event, why in NO_CANARY:
            await release(seen, config, bundles[kind], 2, stage="canary", **changes)
            assert why in (await nth_event(seen, event, next(numbers[event]))).reason
            assert [path.name for path in base.iterdir()] == ["1"], why
    assert {(one.label, one.model_version) for one in seen.results} == {("cat", 1)}
    assert canary_report(seen) is None


async def test_devices_of_the_champion_do_not_wait_for_the_challenger(config, bundles, monkeypatch):
    """A device of a mixed batch has its next turn as soon as its version has answered."""
    gates, calls = {None: asyncio.Event(), 1: asyncio.Event(), 2: asyncio.Event()}, []

    class Gated(Predictor):
        async def predict(self, images, version=None, *, timeout_s=None):
            calls.append(version)
            await gates[version].wait()
            return await super().predict(images, version)

    monkeypatch.setattr("edge.service.Predictor", Gated)
    plan = CanaryPlan("canary", 0.5, 1, 2, 0)
    canary = next(device for device in DEVICES if plan.includes(device))
    other, *more = [device for device in DEVICES if not plan.includes(device)]
    for gate in gates.values():
        gate.set()
    async with station(config) as seen, asyncio.TaskGroup() as tasks:
        await seen.send(enveloped(1, photo(1)))
        await seen.answer(photo_id(1))
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=0.5, baseline=1)
        await nth_event(seen, "model.tried")
        for gate in gates.values():
            gate.clear()
        calls.clear()
        for number in range(config.calls):
            tasks.create_task(classify(seen, more[number]))
            await eventually(lambda wanted=number + 1: len(calls) == wanted)
        slow, quick = (tasks.create_task(classify(seen, device)) for device in (canary, other))
        # Answered from the result log: it shows that the other two are waiting for their turn.
        await seen.send(enveloped(1, photo(1)))
        await eventually(lambda: len(seen.results) == 2)
        gates[1].set()
        assert await quick == ("cat", 1)
        assert await classify(seen, other) == ("cat", 1)
        assert not slow.done()
        gates[2].set()
        assert await slow == ("dog", 2)


async def test_status_counts_calls_of_the_version_in_service(config, base, monkeypatch):
    """Classified photos, and failed calls that are not the fault of a photo."""
    monkeypatch.setitem(Presence.__init__.__kwdefaults__, "every_s", 0.1)

    def serving(seen: Observer) -> VersionStats:
        return seen.newest().serving or VersionStats(version=0)

    async with station(config) as seen:
        await eventually(lambda: serving(seen).version == 1)
        for _ in range(5):
            assert await classify(seen) == ("cat", 1)
        await eventually(lambda: (serving(seen).answered, serving(seen).failed) == (5, 0))
        place("refusing", base, 2)
        await eventually(lambda: serving(seen).version == 2)
        await seen.send(enveloped(10**6, photo(10**6, "red"), "pi-9"), "pi-9")
        await eventually(lambda: serving(seen).failed >= 2)
        assert serving(seen).answered == 0


async def test_without_models_dir_a_canary_is_refused(config, bundles):
    """Where others place the models, an event reports that the edge cannot."""
    async with station(structs.replace(config, models_dir=None)) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1)
        assert "models_dir is not configured" in (await nth_event(seen, "model.refused")).reason


async def test_g6_no_request_fails_from_shadow_to_all_and_back(config, base, bundles):
    """Under load: shadow, canary, a larger share, all, the next version as canary, and its end."""
    async with station(config) as seen, photos_sent(seen) as sent:

        async def wait_for_report(version: int, stages: int) -> None:
            """Wait until the n-th stage is reported, with comparisons."""
            await nth_event(seen, "model.tried", stages)
            await eventually(
                lambda: canary_report(seen) is not None and canary_report(seen).challenger.version == version
            )
            await eventually(lambda: canary_report(seen).compared > 0)

        stages = count()
        for plan in ({"stage": "shadow"}, {"stage": "canary", "share": 0.5}, {"stage": "canary"}):
            await release(seen, config, bundles["swapped"], 2, baseline=1, **plan)
            await wait_for_report(2, next(stages))
        await release(seen, config, bundles["swapped"], 2)
        assert (await nth_event(seen, "model.available")).facts["version"] == 2
        assert await classify(seen) == ("dog", 2)
        await eventually(lambda: canary_report(seen) is None)
        await release(seen, config, bundles["straight"], 3, stage="canary", share=0.5, baseline=2)
        await wait_for_report(3, next(stages))
        await release(seen, config, bundles["swapped"], 2)
        await eventually(lambda: canary_report(seen) is None)
        assert await classify(seen) == ("dog", 2)
        await eventually(lambda: sorted(path.name for path in base.iterdir()) == ["1", "2"])
    assert len(sent) > 50
    assert {result.status for result in seen.results} == {"ok"}
    wanted = {("cat", 1), ("dog", 2), ("cat", 3)}
    assert {(one.label, one.model_version) for one in seen.results} == wanted


async def test_g6_a_canary_continues_after_a_restart_of_the_edge(config, base, bundles, tmp_path):
    """From the retained release and the folder on disk, without a download."""
    bundle = tmp_path / "moved.tar"
    bundle.write_bytes(bundles["swapped"].read_bytes())
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            source = {"url": bundle.as_uri()}
            await release(seen, config, bundles["swapped"], 2, stage="shadow", baseline=1, **source)
            await nth_event(seen, "model.tried")
        await seen.status("offline")
        bundle.unlink()
        await seen.send(enveloped(1, photo(1, "red")))
        async with edge_running(config):
            await nth_event(seen, "model.tried", 1)
            assert (await seen.answer(photo_id(1))).model_version == 1
            assert await classify(seen) == ("cat", 1)
            await eventually(lambda: canary_report(seen) is not None and canary_report(seen).compared > 0)
            await release(seen, config, bundles["swapped"], 2, **source)
            assert (await nth_event(seen, "model.available")).facts["version"] == 2
            assert await classify(seen) == ("dog", 2)


async def test_g6_a_canary_continues_after_a_restart_of_the_model_server(
    address, own_serving, bundles, tmp_path
):
    """A restarted server serves the champion alone, until the edge configures both again."""
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, stage="canary", share=1.0, baseline=1)
        await nth_event(seen, "model.tried")
        assert await classify(seen) == ("dog", 2)
        own_serving.kill()
        await asyncio.to_thread(own_serving.start)
        assert (await classify(seen))[0] in {"cat", "dog"}
        async with Predictor(config.serving, config.model) as predictor:
            await eventually(lambda: canary_report(seen) is not None)
            assert (await predictor.model_status()).version == 2
        assert await classify(seen) == ("dog", 2)
        assert canary_report(seen).challenger.failed == 0
        await release(seen, config, bundles["straight"], 1)
        await eventually(lambda: canary_report(seen) is None)
        assert await classify(seen) == ("cat", 1)
