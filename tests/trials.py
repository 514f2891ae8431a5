"""What tests of trials share: a model server of one model at a time, and edges that look often."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from bus.config import Broker
from edge.config import EdgeConfig
from edge.serving.client import Predictor
from schemas.messages import CanaryReport, Event
from schemas.topics import RELEASE
from tests.conftest import eventually
from tests.nodes import NODE, Observer, edge_config, enveloped, photo, photo_id
from tests.serving import ModelServer, place, release_of

NUMBERS = count(1)


@contextmanager
def serving_one_at_a_time(base: Path) -> Iterator[ModelServer]:
    """Run a model server as a node's own is: told which model to serve."""
    place("straight", base / "pets", 1)
    server = ModelServer(base, "pets")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let edges look more often than others; these servers look every 50 ms."""
    monkeypatch.setattr("edge.models.smoke_test.LOOK_S", 1.0)
    monkeypatch.setattr("edge.models.deployer._WATCH_S", 0.1)
    monkeypatch.setattr("edge.models.deployer._TRIAL_EVERY_S", 0.1)


async def with_a_model_of_its_own(address: Broker, server: ModelServer, folder: Path) -> EdgeConfig:
    """Return the configuration of an edge whose model no other test has, `straight` as version 1."""
    model = f"trial-{next(NUMBERS)}"
    place("straight", server.base / model, 1)
    async with Predictor(server.address, model) as predictor:
        await predictor.serve(server.base / model)
    return edge_config(address, server.address, folder, model=model, models_dir=str(server.base))


async def release(seen: Observer, config: EdgeConfig, bundle: Path, version: int, **changes: object) -> None:
    """Release a version of an edge's model, with a time of its own."""
    facts = {"model": config.model, "released_at_ms": next(NUMBERS)} | changes
    await seen.bus.publish(RELEASE, release_of(bundle, version, **facts), node=NODE)


async def told(seen: Observer, event: str, number: int = 0) -> Event:
    """Wait for the n-th event of a kind."""

    def found() -> list[Event]:
        return [one for one in seen.events if one.event == event]

    await eventually(lambda: len(found()) > number, within_s=60)
    return found()[number]


async def said(seen: Observer, device: str = "pi-99", *, within_s: float = 15.0) -> tuple[str, int]:
    """Return what a red photo of a device is called now, and by which version."""
    number = next(NUMBERS)
    await seen.send(enveloped(number, photo(number, "red"), device), device)
    answer = await seen.answer(photo_id(number), device, within_s=within_s)
    return answer.label, answer.model_version


def trial(seen: Observer) -> CanaryReport | None:
    """Return the trial that the edge reports."""
    return seen.newest().canary
