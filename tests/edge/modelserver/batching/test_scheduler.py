"""Server-side batching: the decisions of the queue, and calls that run as one batch."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver.batching import scheduler as batching
from edge.modelserver.batching.parameters import BatchingParameters
from edge.modelserver.status import Code, ServingError


def _task(size: int) -> Any:
    return batching.Task({"x": np.arange(size)}, size, None)


def test_a_batch_is_due_after_its_timeout_or_when_full() -> None:
    """An open batch is due one timeout after its first call, or as soon as it is full."""
    queue = batching.BatchQueue(BatchingParameters(max_batch_size=4, batch_timeout_micros=2_000_000))
    assert queue.empty
    assert queue.due_s() == float("inf")
    queue.add(_task(1), 10.0)
    queue.add(_task(2), 11.0)
    assert queue.due_s() == 12.0
    queue.add(_task(1), 11.5)
    assert queue.due_s() == float("-inf")
    assert queue.take().size == 4
    assert queue.empty


def test_a_call_that_does_not_fit_opens_the_next_batch() -> None:
    """A call is never split without the option for it: if it does not fit, it starts the next batch."""
    queue = batching.BatchQueue(BatchingParameters(max_batch_size=4, batch_timeout_micros=1))
    queue.add(_task(3), 0.0)
    queue.add(_task(2), 0.0)
    assert [queue.take().size, queue.take().size] == [3, 2]


def test_a_full_queue_refuses_calls() -> None:
    """Beyond max_enqueued_batches a call gets UNAVAILABLE, until a batch is taken out."""
    queue = batching.BatchQueue(BatchingParameters(max_batch_size=2, max_enqueued_batches=2))
    queue.add(_task(2), 0.0)
    queue.add(_task(2), 0.0)
    with pytest.raises(ServingError) as error:
        queue.add(_task(1), 0.0)
    assert error.value.code is Code.UNAVAILABLE
    assert error.value.message == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued "
        "and max_enqueued_batches is 2"
    )
    queue.take()
    queue.add(_task(1), 0.0)


def test_a_call_larger_than_a_batch_is_refused() -> None:
    """A call with more rows than max_batch_size gets INVALID_ARGUMENT."""
    queue = batching.BatchQueue(BatchingParameters(max_batch_size=2))
    with pytest.raises(ServingError) as error:
        queue.add(_task(3), 0.0)
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.message == "Task size 3 is larger than maximum input batch size 2"


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_large_calls_are_split_over_batches(sizes: list[int]) -> None:
    """With splitting, each batch is filled to its limit, and rows keep their number and order."""
    queue = batching.BatchQueue(
        BatchingParameters(
            max_batch_size=20,
            max_enqueued_batches=100,
            enable_large_batch_splitting=True,
            max_execution_batch_size=8,
        )
    )
    parts = [queue.add(_task(size), 0.0) for size in sizes]
    for size, of_one in zip(sizes, parts, strict=True):
        assert np.concatenate([part.feeds["x"] for part in of_one]).tolist() == list(range(size))
    batches = []
    while not queue.empty:
        batches.append(queue.take().size)
    assert sum(batches) == sum(sizes)
    assert all(size == 8 for size in batches[:-1])


def test_splitting_is_bounded() -> None:
    """With splitting, a call larger than the free capacity gets UNAVAILABLE."""
    queue = batching.BatchQueue(
        BatchingParameters(
            max_batch_size=20,
            max_enqueued_batches=2,
            enable_large_batch_splitting=True,
            max_execution_batch_size=4,
        )
    )
    queue.add(_task(3), 0.0)
    with pytest.raises(ServingError) as error:
        queue.add(_task(6), 0.0)
    assert error.value.code is Code.UNAVAILABLE
    assert "task size is 6 but scheduling capacity is only 5" in error.value.message
    queue.add(_task(5), 0.0)


# The server with batching

THREADS = 8


@pytest.fixture(scope="module")
def batched(
    saved: Any, entry: Any, launch: Any, connect: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A client of a server that merges up to eight rows and pads to 4 or 8.

    A batch waits an hour for further rows: it runs when it is full, on a machine of any speed.
    """
    root: Path = tmp_path_factory.mktemp("batched")
    parameters = root / "batching.config"
    parameters.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 3600000000 } "
        "num_batch_threads { value: 2 } max_enqueued_batches { value: 2 } "
        "allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    )
    shutil.copytree(saved["half+2"], root / "half" / "1")
    models = root / "models.config"
    config = entry("half", root / "half", 'version_labels { key: "gold" value: 1 }')
    models.write_text(f"model_config_list {{ {config} }}")
    started = launch(
        f"--model_config_file={models}",
        "--allow_version_labels_for_unavailable_models",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        "--grpc_max_threads=32",
    )
    return connect(started.listening().port)


def _together(calls: list[Any]) -> list[Any]:
    """Make calls at the same moment and return their results."""
    gate = threading.Barrier(len(calls))

    def make(call: Any) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def test_concurrent_calls_run_as_one_batch(batched: Any) -> None:
    """Eight concurrent calls of one row run as one batch of eight, and each gets its own output."""
    calls = [lambda x=x: batched.predict("half", {"x": [float(x)]}).outputs for x in range(THREADS)]
    answers = _together(calls)
    assert [list(answer["rows"].float_val) for answer in answers] == [[8.0]] * THREADS
    assert [list(answer["y"].float_val) for answer in answers] == [[x / 2 + 2] for x in range(THREADS)]


def test_a_batch_is_padded_to_an_allowed_size(batched: Any, eventually: Any) -> None:
    """A batch of one row, closed by a call that does not fit, runs with the smallest allowed size."""
    lone = batched.prediction.Predict.future(batched.request("half", {"x": [1.0]}), timeout=600)

    def closed() -> bool:
        return batched.half("half", [1.0] * 8) == [2.5] * 8 and lone.done()

    eventually(closed, "the batch of one row closed")
    outputs = lone.result().outputs
    assert list(outputs["rows"].float_val) == [4.0]
    assert list(outputs["y"].float_val) == [2.5]


def test_a_bad_call_fails_its_whole_batch(batched: Any, failure: Any) -> None:
    """Calls that cannot be merged fail together."""
    shapes = [[[1.0, 2.0]] * 4, [[1.0, 2.0, 3.0]] * 4]
    calls = [lambda x=x: failure(lambda: batched.predict("half", {"x": x}, "wide")) for x in shapes]
    for code, message in _together(calls):
        assert code == "FAILED_PRECONDITION"
        assert "have different shapes and padding is turned off" in message


def test_a_label_may_precede_its_version(batched: Any) -> None:
    """With the flag for it, a list may label a version that is not loaded yet, even the first list."""
    assert batched.half("half", [2.0] * 8, label="gold") == [3.0] * 8


def test_a_call_larger_than_a_batch_is_refused_over_the_wire(batched: Any, failure: Any) -> None:
    """A call of nine rows is refused if max_batch_size is eight."""
    got = failure(lambda: batched.half("half", [1.0] * 9))
    assert got == ("INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8")


def test_calls_are_refused_when_threads_and_queue_are_full(
    batched: Any, eventually: Any, tmp_path: Path
) -> None:
    """Two batches run and two wait: the next call gets UNAVAILABLE, the accepted ones are answered."""
    request = batched.request("half", {"path": [str(tmp_path / "go-on")] * 8}, "held")
    futures: list[Any] = []

    def refused() -> bool:
        futures.append(batched.prediction.Predict.future(request, timeout=600))
        return any(future.done() and future.code() is grpc.StatusCode.UNAVAILABLE for future in futures)

    eventually(refused, "a call refused")
    (tmp_path / "go-on").touch()
    for future in futures:
        if future.code() is grpc.StatusCode.UNAVAILABLE:
            assert future.details().startswith(
                "The batch scheduling queue to which this task was submitted is full; currently 2 batches "
            )
        else:
            assert future.code() is grpc.StatusCode.OK


def test_a_deadline_applies_in_the_queue(batched: Any, failure: Any, eventually: Any) -> None:
    """A call that waits in the queue past its deadline fails with DEADLINE_EXCEEDED at its client."""
    assert failure(lambda: batched.predict("half", {"x": [1.0]}, timeout=0.3))[0] == "DEADLINE_EXCEEDED"
    # The expired row, if it reached the server, still fills its batch: a full batch runs in either case.
    eventually(lambda: batched.half("half", [2.0] * 8) == [3.0] * 8, "later calls answered")
