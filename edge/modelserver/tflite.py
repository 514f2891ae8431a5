"""Run the network of a version in LiteRT.

LiteRT is part of TensorFlow and computes the same float32 network in little more than half the CPU time.
Decoding, resizing and normalizing stay in the SavedModel's graph: training and serving use the same pixels.
"""

import os
import queue
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array

NETWORK_FILE = Path("assets.extra", "network.tflite")
SERVING_SIGNATURE, DECODE_SIGNATURE = "serving_default", "decode"
"""The signature that the network replaces, and the one that decodes its inputs for the network."""

PIXELS_TENSOR = "pixels"
"""Output of the signature `decode` and input of the network."""

log = structlog.get_logger()

_Runner = Callable[..., Mapping[str, Array]]


class Network:
    """A LiteRT network; thread-safe. The photos of a call run in parallel, one thread each.

    Args:
        path: file of the network.
        threads: photos at a time, at about 40 MB each; 0 for the number of CPUs.

    Raises:
        ServingError: LiteRT is not installed or cannot run the file.
    """

    def __init__(self, path: Path, threads: int) -> None:
        threads = threads or len(os.sched_getaffinity(0))  # unlike cpu_count, respects a container's cpuset
        # An interpreter is not thread-safe: a run takes one out of the queue.
        self._free: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        for _ in range(threads):
            self._free.put(_runner(path))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="modelserver.network")

    def run(self, images: Array, timeout_s: float | None) -> dict[str, Array]:
        """Run images `[N, H, W, 3]`, N ≥ 1.

        Returns:
            Output name to array `[N, …]`.

        Raises:
            ServingError: INTERNAL if LiteRT fails, DEADLINE_EXCEEDED after `timeout_s`.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        futures = [self._pool.submit(self._run_one, images[at : at + 1]) for at in range(len(images))]
        try:
            parts = [_result(future, deadline_s) for future in futures]
        finally:
            # LiteRT cannot be interrupted: what runs goes on, what has not begun never starts.
            for future in futures:
                future.cancel()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """End the threads and free the memory. Call only if no `run` is in progress."""
        self._pool.shutdown(cancel_futures=True)
        while not self._free.empty():
            self._free.get()

    def _run_one(self, image: Array) -> Mapping[str, Array]:
        runner = self._free.get()
        try:
            return runner(**{PIXELS_TENSOR: image})
        finally:
            self._free.put(runner)


def find_network(path: Path, signatures: Collection[str], threads: int) -> Network | None:
    """Load the network of a version; return None if it has none, so that the graph answers.

    Args:
        path: the directory of the version.
        signatures: names of its signatures.
        threads: as for `Network`.

    Raises:
        ServingError: LiteRT cannot run the network.
    """
    file = path / NETWORK_FILE
    if not file.is_file() or not {SERVING_SIGNATURE, DECODE_SIGNATURE} <= set(signatures):
        missing = f"{NETWORK_FILE} or signature {DECODE_SIGNATURE}"
        log.warning("modelserver.network_missing", path=str(path), missing=missing)
        return None
    return Network(file, threads)


def _result(future: "Future[Mapping[str, Array]]", deadline_s: float | None) -> Mapping[str, Array]:
    try:
        return future.result(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
    except (FutureTimeoutError, CancelledError) as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
    except (RuntimeError, ValueError) as error:
        raise ServingError(Code.INTERNAL, f"LiteRT: {error}") from error


def _runner(path: Path) -> _Runner:
    try:
        from tensorflow.lite.python.interpreter import Interpreter  # noqa: PLC0415 - only for servers that use it

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # LiteRT moves to a package of its own one day
            # One thread: photos in parallel scale better than operations in parallel.
            interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
        runner: _Runner = interpreter.get_signature_runner()
    except (ImportError, RuntimeError, ValueError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path.name}: LiteRT cannot run it: {error}") from error
    return runner
