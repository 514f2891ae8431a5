"""An image that takes long to decode occupies its own call, and no other."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.modelserver.runtimes.run_slots import MAX_RUNS, run_slot
from edge.modelserver.status import ServingError
from tests.conftest import DEADLINE_S
from tests.nodes import photo
from tests.serving import place

SLOW, RED = photo(1, "green"), photo(2, "red")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model whose `stalled` is a named pipe: a green image waits for its writer."""
    place("stalling", tmp_path / "pets", 1)
    pipe = tmp_path / "pets/1/assets/stalled"
    pipe.unlink()
    os.mkfifo(pipe)
    return tmp_path / "pets"


def test_slow_images_leave_other_calls_their_answers(launch, models, connect):
    """With more slow images in progress than there are cores, a call and the status are answered."""
    slow_calls = 2 * (os.cpu_count() or 1) + 1
    server = launch(
        "--model_name=pets", f"--model_base_path={models}", f"--grpc_max_threads={slow_calls + 1}"
    )
    client = connect(server.listening().port)
    with ThreadPoolExecutor(slow_calls) as callers:
        requests = [client.request("pets", {"image": [SLOW]}) for _ in range(slow_calls)]
        calls = [client.prediction.Predict.future(request, timeout=DEADLINE_S) for request in requests]
        for _ in range(3):
            answer = client.predict("pets", {"image": [RED]})
            assert answer.outputs["probabilities"].float_val[0] > 0.9
        # The last thread is taken as well, and the status has its own.
        calls.append(client.prediction.Predict.future(requests[0], timeout=DEADLINE_S))
        assert client.states("pets") == {1: "AVAILABLE"}
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        del callers
    server.process.kill()


def test_runs_are_bounded():
    """Beyond the bound, a run waits for another one to end, and fails at its deadline."""
    held = threading.Barrier(MAX_RUNS + 1)
    release = threading.Event()

    def hold() -> None:
        with run_slot(None):
            held.wait()
            release.wait()

    with ThreadPoolExecutor(MAX_RUNS) as pool:
        for _ in range(MAX_RUNS):
            pool.submit(hold)
        held.wait()
        with pytest.raises(ServingError, match="busy"), run_slot(0.01):
            pass
        release.set()
    with run_slot(0.0):
        pass
