"""Run networks in LiteRT."""

import os
import queue
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from edge.modelserver.runtimes.allocator import release_pages
from edge.modelserver.runtimes.base import SERVING_SIGNATURE
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from schemas.litert import DECODE_SIGNATURE, NETWORK_FILE, PIXELS_TENSOR
from schemas.litert.chain import Chain, Values

log = structlog.get_logger()

MAX_RUNS = 16
"""Most calls in progress on a network; further ones wait for a thread, until their deadline."""


Prepare = Callable[[Any, float | None], Array]
"""Converts an item of a call to a network's input, by the call's deadline on the monotonic clock."""


class Network:
    """A chain of LiteRT networks; thread-safe. The items of a call run in parallel, one thread each.

    Attributes:
        empty: the outputs of a call without photos, by name, each `[0, …]`.

    Args:
        files: the chain; each network takes outputs of the one before.
        threads: items at a time, at 8 MB (8-bit integers) to 22 MB each; 0 for the number of CPUs.
        prepare: converts an item of a call to the first network's input, in the item's thread; by default
            the item is the input.
        input_name: of the first network.

    Raises:
        ServingError: LiteRT is not installed or cannot run a file.
    """

    def __init__(
        self,
        files: Sequence[Path],
        threads: int,
        *,
        prepare: Prepare | None = None,
        input_name: str = PIXELS_TENSOR,
    ) -> None:
        threads = threads or len(os.sched_getaffinity(0))  # unlike cpu_count, respects a container's cpuset
        self._prepare = prepare
        self._files = files
        self._not_run: set[Chain] = set()
        # An interpreter is not thread-safe: a run takes one out of the queue.
        self._free: queue.SimpleQueue[Chain] = queue.SimpleQueue()
        for _ in range(threads):
            chain = _chain(files, input_name)
            self._free.put(chain)
            self._not_run.add(chain)
        self.empty = chain.empty
        self._parallel = threads
        # More threads than interpreters: a photo that is slow to decode occupies a thread of its call alone.
        self._pool = ThreadPoolExecutor(threads * MAX_RUNS, thread_name_prefix="modelserver.network")

    def run(self, items: Sequence[Any], timeout_s: float | None) -> dict[str, Array]:
        """Run items, at least one, each separately.

        Returns:
            Output name to array, of all networks of the chain; those of the items are concatenated.

        Raises:
            ServingError: INTERNAL if LiteRT fails, DEADLINE_EXCEEDED after `timeout_s`; those of `prepare`.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        left = deque(enumerate(items))
        parts: list[Values] = [{}] * len(items)

        def work() -> None:
            while True:
                try:
                    number, item = left.popleft()
                except IndexError:
                    return
                parts[number] = self._run_one(item, deadline_s)

        workers = [self._pool.submit(work) for _ in range(min(self._parallel, len(items)))]
        try:
            for worker in workers:
                _wait(worker, deadline_s)
        finally:
            # Neither a decoder nor LiteRT can be interrupted: started items finish, the others never start.
            left.clear()
            for worker in workers:
                worker.cancel()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """End the threads and free the memory. Call only if no `run` is in progress."""
        self._pool.shutdown(cancel_futures=True)
        self._not_run.clear()
        while not self._free.empty():
            self._free.get()

    def _run_one(self, item: Any, deadline_s: float | None) -> Values:
        # Before a chain is taken: decoding must not hold an interpreter.
        image = self._prepare(item, deadline_s) if self._prepare else item
        chain = self._free.get()
        try:
            values = chain.run(image)
            if chain in self._not_run:
                self._not_run.discard(chain)
                release_pages(self._files)
            return values
        finally:
            self._free.put(chain)


def find_network(path: Path, signatures: Collection[str], threads: int) -> Network | None:
    """Load the float32 network of a version for TensorFlow's runtime; None if it has none.

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
    return Network((file,), threads)


def _wait(worker: "Future[None]", deadline_s: float | None) -> None:
    try:
        worker.result(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
    except (FutureTimeoutError, CancelledError) as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
    except (RuntimeError, ValueError) as error:
        raise ServingError(Code.INTERNAL, f"LiteRT: {error}") from error


def _chain(files: Sequence[Path], input_name: str) -> Chain:
    try:
        return Chain(files, input_name)
    except (ImportError, RuntimeError, ValueError) as error:
        names = ", ".join(file.name for file in files)
        raise ServingError(Code.INVALID_ARGUMENT, f"{names}: LiteRT cannot run it: {error}") from error
