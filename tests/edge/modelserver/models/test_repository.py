"""Finding the version that a request means, at the moment when versions change."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edge.modelserver.config import ModelConfig
from edge.modelserver.models.repository import MAX_ENDED, Model, Repository
from edge.modelserver.models.servable import Servable
from edge.modelserver.models.versions import State, Version
from edge.modelserver.runtimes.graph import TensorFlowRuntime
from tests.conftest import DEADLINE_S


def test_a_request_that_finds_a_retired_version_retries(saved: Any) -> None:
    """A version retired between look-up and acquire is not used: the next one answers."""
    repository = Repository()
    model = repository.models["half"] = Model(ModelConfig("half", Path("/half")))
    for number in (1, 2):
        model.servables[number] = Servable("half", number, TensorFlowRuntime().load(saved["half+2"]))
        repository.set_version("half", number, Version(State.AVAILABLE))
    with repository.use("half") as found:
        assert found.version == 2
    model.servables[2].retire(lambda: None)

    def version() -> int:
        with repository.use("half") as held:
            return held.version

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(version)
        repository.set_version("half", 2, Version(State.UNLOADING))
        assert answer.result(timeout=DEADLINE_S) == 1
    model.servables[1].retire(lambda: None)
    for servable in model.servables.values():
        assert servable.idle
        servable.close()


def test_removed_models_keep_a_bounded_status() -> None:
    """After any number of reloads, only the last MAX_ENDED removed models keep a status."""
    repository = Repository()
    for number in range(MAX_ENDED + 20):
        repository.models[f"m{number}"] = Model(versions={1: Version(State.END)})
    repository.reload([], is_cancelled=lambda: True)
    assert list(repository.models) == [f"m{number}" for number in range(20, MAX_ENDED + 20)]
