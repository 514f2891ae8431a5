"""Shared by the tests of canaries: a model server with one model, and an edge that checks often."""

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
def single_model_server(base: Path) -> Iterator[ModelServer]:
    """Run a model server whose list of models is replaced by each edge, as on a node."""
    place("straight", base / "pets", 1)
    server = ModelServer(base, "pets")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def shorten_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the edge's intervals; these model servers read their folders every 50 ms."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 1.0)
    monkeypatch.setattr("edge.models.deployer._CHECK_S", 0.1)
    monkeypatch.setattr("edge.models.deployer._CANARY_REPORT_S", 0.1)
    # Not exceeded by the time that a busy machine takes to restart a model server.
    monkeypatch.setattr("edge.models.deployer._LONGEST_RETRY_S", 0.5)


async def unique_model_config(address: Broker, server: ModelServer, folder: Path) -> EdgeConfig:
    """Return the configuration of an edge whose model no other test uses, with `straight` as version 1."""
    model = f"canary-{next(NUMBERS)}"
    place("straight", server.base / model, 1)
    async with Predictor(server.address, model) as predictor:
        await predictor.reload_config(server.base / model)
    return edge_config(address, server.address, folder, model=model, models_dir=str(server.base))


async def release(seen: Observer, config: EdgeConfig, bundle: Path, version: int, **changes: object) -> None:
    """Release a version of an edge's model, at a later time than all releases before."""
    facts = {"model": config.model, "released_at_ms": next(NUMBERS)} | changes
    await seen.bus.publish(RELEASE, release_of(bundle, version, **facts), node=NODE)


async def nth_event(seen: Observer, event: str, number: int = 0) -> Event:
    """Wait for the n-th event of a kind."""

    def matching() -> list[Event]:
        return [one for one in seen.events if one.event == event]

    await eventually(lambda: len(matching()) > number)
    return matching()[number]


async def classify(seen: Observer, device: str = "pi-99", *, within_s: float = 120.0) -> tuple[str, int]:
    """Send a red photo from a device; return its label and the version that answered."""
    number = next(NUMBERS)
    await seen.send(enveloped(number, photo(number, "red"), device), device)
    answer = await seen.answer(photo_id(number), device, within_s=within_s)
    return answer.label, answer.model_version


def canary_report(seen: Observer) -> CanaryReport | None:
    """Return the canary in the edge's newest status."""
    return seen.newest().canary
