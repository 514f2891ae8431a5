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
from tests.conftest import DEADLINE_S, eventually, running
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
    monkeypatch.setattr("cloud.rollout.controller._POLL_S", 0.1)


@pytest.fixture
async def config(address, serving, tmp_path) -> EdgeConfig:
    """An edge with a model that no other test uses."""
    return await unique_model_config(address, serving, tmp_path)


@pytest.fixture
def rollout_file(config, tmp_path):
    """Return a function that writes a rollout of a SavedModel as version 2, without a promotion gate."""

    def write(kind: str, *steps: Step) -> Path:
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

    return write


@asynccontextmanager
async def photos_sent(seen: Observer) -> AsyncIterator[None]:
    """Send red photos from several devices during a block; all are answered at its end."""
    stop, numbers = asyncio.Event(), count()

    def answered() -> int:
        return sum(len(seen.final(device)) for device in DEVICES)

    async def send() -> None:
        for number in numbers:
            device = DEVICES[number % len(DEVICES)]
            await seen.send(enveloped(number, photo(number, "red"), device), device)
            await eventually(lambda sent=number + 1: sent - answered() < 6)
            if stop.is_set():
                await eventually(lambda sent=number + 1: answered() == sent)
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        yield
        stop.set()


async def run_to_end(address, path: Path) -> Rollout:
    """Run a controller to its end."""
    bus = Bus(address, "gleaner-cloud-rollout", presence=Presence(CLOUD, "rollout"))
    controller = Controller(
        bus, RolloutFile(path), sign=lambda release: release, audits=lambda _: RolloutAudits()
    )
    async with running(bus), asyncio.timeout(DEADLINE_S):
        return await controller.run()


async def classify(seen: Observer) -> tuple[str, int]:
    """Send a red photo; return its label and the version that answered."""
    await seen.send(enveloped(10**6, photo(10**6, "red"), "pi-99"), "pi-99")
    answer = await seen.answer(photo_id(10**6), "pi-99")
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
async def test_g6_a_bad_model_forced_past_the_gate_is_rolled_back(
    config, address, rollout_file, kind, steps, why, labels
):
    """Swapped labels, failing calls, a broken model: the champion serves, and every photo is answered."""
    path = rollout_file(kind, *steps)
    async with station(config) as seen:
        async with photos_sent(seen):
            rollout = await run_to_end(address, path)
            await eventually(lambda: seen.newest().canary is None)
        assert rollout.phase == "returned"
        assert why in rollout.reason
        assert await classify(seen) == ("cat", 1)
        rolled_back = next(event for event in seen.events if event.event == "rollout.returned")
        assert why in rolled_back.reason
        assert {result.status for result in seen.results} == {"ok"}
        assert {result.label for result in seen.results} == labels


async def test_g6_a_good_model_reaches_all_devices(config, address, rollout_file):
    """Through shadow, canary and all, as the status reports, and every photo is answered."""
    path = rollout_file("straight", *STEPS)
    async with station(config) as seen:
        async with photos_sent(seen):
            assert (await run_to_end(address, path)).phase == "finished"
        assert await classify(seen) == ("cat", 2)
        reports = [status.canary for status in seen.statuses if status.name == "edge" and status.canary]
        assert list(dict.fromkeys(report.stage for report in reports)) == ["shadow", "canary"]
        assert max(report.disagreed for report in reports) == 0
        assert {result.status for result in seen.results} == {"ok"}
