"""A rollout through the whole system: real broker, real model server, edge and controller."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.rollout_state import Rollout, RolloutFile, Rules, Step
from cloud.rollout.controller import Controller
from edge.config import EdgeConfig
from schemas.topics import CLOUD
from tests.canaries import shorten_intervals, single_model_server, unique_model_config
from tests.conftest import eventually, running
from tests.nodes import NODE, Observer, enveloped, photo, photo_id, station
from tests.serving import ModelServer, pack, release_of, saved_models

DEVICES = tuple(f"pi-{number}" for number in range(6))
CANARY = Step("canary", 0.5, 10)
STEPS = [Step("shadow", photos=10), CANARY, Step("all")]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model server with one model at a time."""
    with single_model_server(tmp_path_factory.mktemp("models")) as server:
        yield server


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch) -> None:
    """Edge and controller check often."""
    shorten_intervals(monkeypatch)
    monkeypatch.setattr("cloud.rollout.controller._LOOK_S", 0.1)


@pytest.fixture
async def config(address, serving, tmp_path) -> EdgeConfig:
    """An edge with a model that no other test uses."""
    return await unique_model_config(address, serving, tmp_path)


@pytest.fixture
def begun(config, tmp_path):
    """A function that begins a rollout of a SavedModel as version 2, forced past any gate."""

    def begin(kind: str, *steps: Step) -> Path:
        champion, challenger = (
            release_of(
                pack(saved_models() / name, tmp_path / f"{version}.tar"),
                version,
                model=config.model,
                released_at_ms=1,
            )
            for version, name in ((1, "straight"), (2, kind))
        )
        path = tmp_path / "rollout-2.json"
        rollout = Rollout(
            champion=champion,
            challenger=challenger,
            groups=[[NODE]],
            steps=list(steps),
            rules=Rules(stage_s=0, bake_time_s=0, p95_slack_ms=1000),
            since_ms=1,
        )
        RolloutFile(path).write(rollout)
        return path

    return begin


@asynccontextmanager
async def asking(seen: Observer) -> AsyncIterator[None]:
    """Send red photos of several devices for the length of a block; all are answered at its end."""
    enough, numbers = asyncio.Event(), count()

    def answered() -> int:
        return sum(len(seen.final(device)) for device in DEVICES)

    async def send() -> None:
        for number in numbers:
            device = DEVICES[number % len(DEVICES)]
            await seen.send(enveloped(number, photo(number, "red"), device), device)
            await eventually(lambda sent=number + 1: sent - answered() < 6)
            if enough.is_set():
                await eventually(lambda sent=number + 1: answered() == sent)
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        yield
        enough.set()


async def ended(address, path: Path) -> Rollout:
    """Run a controller to its end."""
    bus = Bus(address, "gleaner-cloud-rollout", presence=Presence(CLOUD, "rollout"))
    controller = Controller(
        bus, RolloutFile(path), sign=lambda release: release, audits=lambda _: RolloutAudits()
    )
    async with running(bus), asyncio.timeout(90):
        return await controller.run()


async def now(seen: Observer) -> tuple[str, int]:
    await seen.send(enveloped(10**6, photo(10**6, "red"), "asker"), "asker")
    answer = await seen.answer(photo_id(10**6), "asker")
    return answer.label, answer.model_version


@pytest.mark.parametrize(
    ("kind", "steps", "why", "labels"),
    [
        ("swapped", [CANARY, Step("all")], "photos otherwise than the champion", {"cat", "dog"}),
        ("swapped", STEPS, "photos otherwise than the champion", {"cat"}),
        ("picky", [CANARY, Step("all")], "it failed", {"cat"}),
        ("broken", STEPS, "cannot serve it", {"cat"}),
    ],
)
async def test_g6_a_bad_model_forced_past_the_gate_goes_back_by_itself(
    config, address, begun, kind, steps, why, labels
):
    """Swapped labels, failing calls, no model at all: it ends with the champion, no photo unanswered."""
    path = begun(kind, *steps)
    async with station(config) as seen:
        async with asking(seen):
            rollout = await ended(address, path)
            await eventually(lambda: seen.newest().canary is None)
        assert rollout.phase == "returned"
        assert why in rollout.reason
        assert await now(seen) == ("cat", 1)
        returned = next(event for event in seen.events if event.event == "rollout.returned")
        assert why in returned.reason
        assert {result.status for result in seen.results} == {"ok"}
        assert {result.label for result in seen.results} == labels


async def test_g6_a_good_model_goes_out_to_all(config, address, begun):
    """Shadow, canary, all: the Status tells each, every photo is answered, and then by the new version."""
    path = begun("straight", *STEPS)
    async with station(config) as seen:
        async with asking(seen):
            assert (await ended(address, path)).phase == "finished"
        assert await now(seen) == ("cat", 2)
        trials = [status.canary for status in seen.statuses if status.name == "edge" and status.canary]
        assert list(dict.fromkeys(trial.stage for trial in trials)) == ["shadow", "canary"]
        assert max(trial.disagreed for trial in trials) == 0
        assert {result.status for result in seen.results} == {"ok"}
