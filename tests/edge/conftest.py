"""A model server that the tests of the edge share, and an edge node configured for one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.config import Broker
from edge.config import EdgeConfig
from tests.nodes import edge_config
from tests.serving import ModelServer, pack, place, saved_models

OWN_MODELS = tuple(f"own-{number}" for number in range(12))


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """The real model server: `pets`, models of one test each, `novel`, and `flat`, of the wrong shape."""
    base = tmp_path_factory.mktemp("models")
    for name in ("pets", *OWN_MODELS):
        place("straight", base / name, 1)
    for name in ("flat", "novel"):
        place(name, base / name, 1)
    server = ModelServer(base, "pets", "flat", "novel", *OWN_MODELS)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each SavedModel, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    return {model.name: pack(model, folder / f"{model.name}.tar") for model in saved_models().iterdir()}


@pytest.fixture(scope="session")
def own_models() -> Iterator[str]:
    """Names of models on the shared server that a test may give other versions, each to be taken once."""
    return iter(OWN_MODELS)


@pytest.fixture
def own_serving(tmp_path: Path) -> Iterator[ModelServer]:
    """A model server that a test may kill, pause and give other versions; not started."""
    place("straight", tmp_path / "models/pets", 1)
    server = ModelServer(tmp_path / "models", "pets")
    yield server
    server.kill()


@pytest.fixture
def config(address: Broker, serving: ModelServer, tmp_path: Path) -> Iterator[EdgeConfig]:
    """An edge node on the test's broker and the shared model server, which the test may pause."""
    yield edge_config(address, serving.address, tmp_path, models_dir=str(serving.base))
    serving.resume()
