"""The network of a version in LiteRT, which answers what the decoding in the graph gives.

LiteRT comes with TensorFlow and does the same float32 arithmetic in little more than half the processor time;
decoding, resizing and normalising stay in the SavedModel's graph, so that training and serving cannot differ.
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
ANSWER, DECODE = "serving_default", "decode"
"""The signature that the network stands in for, and the one from the same input to what the network takes."""

PIXELS = "pixels"

log = structlog.get_logger()

_Runner = Callable[..., Mapping[str, Array]]


class Network:
    """A network, ready to be called from any thread. Photos of a call run side by side, each in one thread.

    Args:
        path: its file.
        threads: how many photos at once, each with some 40 MB; 0 for as many as there are processors.

    Raises:
        ServingError: LiteRT is not there, or cannot run the file.
    """

    def __init__(self, path: Path, threads: int) -> None:
        threads = threads or len(os.sched_getaffinity(0))
        self._free: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        for _ in range(threads):
            self._free.put(_runner(path))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="modelserver.network")

    def run(self, images: Array, timeout_s: float | None) -> dict[str, Array]:
        """Answer images `[N, H, W, 3]`, at least one.

        Returns:
            Answers by name, each `[N, …]`.

        Raises:
            ServingError: INTERNAL where LiteRT fails, DEADLINE_EXCEEDED after `timeout_s`.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        asked = [self._pool.submit(self._one, images[at : at + 1]) for at in range(len(images))]
        try:
            parts = [_answer(future, until_s) for future in asked]
        finally:
            for future in asked:
                future.cancel()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """End the threads and free the memory. Only when nobody calls `run`."""
        self._pool.shutdown(cancel_futures=True)
        while not self._free.empty():
            self._free.get()

    def _one(self, image: Array) -> Mapping[str, Array]:
        runner = self._free.get()
        try:
            return runner(**{PIXELS: image})
        finally:
            self._free.put(runner)


def found(path: Path, signatures: Collection[str], threads: int) -> Network | None:
    """Load the network that came with a version; None where there is none, and the graph answers.

    Args:
        path: the directory of the version.
        signatures: the names of those that it has.
        threads: as for `Network`.

    Raises:
        ServingError: there is one, and LiteRT cannot run it.
    """
    file = path / NETWORK_FILE
    if not file.is_file() or not {ANSWER, DECODE} <= set(signatures):
        log.warning("modelserver.no_tflite", path=str(path), expected=f"{NETWORK_FILE}, signature {DECODE}")
        return None
    return Network(file, threads)


def _answer(future: "Future[Mapping[str, Array]]", until_s: float | None) -> Mapping[str, Array]:
    try:
        return future.result(None if until_s is None else max(0.0, until_s - time.monotonic()))
    except (FutureTimeoutError, CancelledError) as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
    except (RuntimeError, ValueError) as error:
        raise ServingError(Code.INTERNAL, f"LiteRT: {error}") from error


def _runner(path: Path) -> _Runner:
    try:
        from tensorflow.lite.python.interpreter import Interpreter  # noqa: PLC0415 - only where it is used

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that LiteRT will leave TensorFlow's package
            interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
        runner: _Runner = interpreter.get_signature_runner()
    except (ImportError, RuntimeError, ValueError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path.name}: LiteRT cannot run it: {error}") from error
    return runner
