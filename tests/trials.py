"""What tests of trials share: a model server of one model at a time, and edges that look often."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from bus.config import Broker
from edge.config import EdgeConfig
from edge.tfserving import Predictor
from tests.nodes import edge_config
from tests.serving import ModelServer, place

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
    monkeypatch.setattr("edge.tryout.LOOK_S", 1.0)
    monkeypatch.setattr("edge.models._WATCH_S", 0.1)
    monkeypatch.setattr("edge.models._TRIAL_EVERY_S", 0.1)


async def with_a_model_of_its_own(address: Broker, server: ModelServer, folder: Path) -> EdgeConfig:
    """Return the configuration of an edge whose model no other test has, `straight` as version 1."""
    model = f"trial-{next(NUMBERS)}"
    place("straight", server.base / model, 1)
    async with Predictor(server.address, model) as predictor:
        await predictor.serve(server.base / model)
    return edge_config(address, server.address, folder, model=model, models_dir=str(server.base))
