"""Fixtures of the edge's tests: a shared model server, and a configured edge node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.config import Broker
from edge.config import EdgeConfig
from tests.nodes import edge_config
from tests.serving import NAMELESS, ModelServer, pack, place, saved_models

OWN_MODELS = tuple(f"own-{number}" for number in range(24))


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """The server of `serving`, started once in this test process."""
    base = tmp_path_factory.mktemp("models")
    for name in ("pets", *OWN_MODELS):
        place("straight", base / name, 1)
    for name in ("flat", "novel", *NAMELESS):
        place(name, base / name, 1)
    server = ModelServer(base, "pets", "flat", "novel", *NAMELESS, *OWN_MODELS)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def serving(shared_server: ModelServer) -> Iterator[ModelServer]:
    """The real model server: `pets`, models that one test each may change, `novel`, `flat` (wrong shape)."""
    shared_server.resume()
    yield shared_server
    shared_server.pause()  # otherwise it would scan the folders of its models until the whole suite ends


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each SavedModel, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    return {model.name: pack(model, folder / f"{model.name}.tar") for model in saved_models().iterdir()}


@pytest.fixture(scope="session")
def own_models() -> Iterator[str]:
    """Names of models on the shared server; a test takes one and may change its versions."""
    return iter(OWN_MODELS)


@pytest.fixture
def own_serving(tmp_path: Path) -> Iterator[ModelServer]:
    """A model server of one test, not started; the test may kill it, pause it and change its versions."""
    place("straight", tmp_path / "models/pets", 1)
    server = ModelServer(tmp_path / "models", "pets")
    yield server
    server.kill()


@pytest.fixture
def config(address: Broker, serving: ModelServer, tmp_path: Path) -> EdgeConfig:
    """An edge node with its own broker and the shared model server, which the test may pause."""
    return edge_config(address, serving.address, tmp_path, models_dir=str(serving.base))
