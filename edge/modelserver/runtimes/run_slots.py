"""Bound the graph runs in progress, each in a separate thread pool.

Decoding an image cannot be interrupted. In one pool for all runs, as many slow images as the machine has
cores would stop every other run in the process, also after their callers gave up.
"""

import queue
from collections.abc import Iterator
from contextlib import contextmanager

from edge.modelserver.status import Code, ServingError

MAX_RUNS = 16
"""Most runs in progress in the process; further ones wait for one to end, until their deadline."""
_LOADING_POOL = 0  # TensorFlow's choice for runs without options, such as the restoring of variables
POOLS = MAX_RUNS + 1
"""Thread pools that the configuration of a session needs; all sessions of the process share them."""

_free: queue.SimpleQueue[int] = queue.SimpleQueue()
for _number in range(MAX_RUNS):
    _free.put(_LOADING_POOL + 1 + _number)


@contextmanager
def run_slot(timeout_s: float | None) -> Iterator[int]:
    """Wait for a pool without a run and yield its number; it is free again when the block ends.

    Args:
        timeout_s: Longest wait in seconds; None for no limit.

    Raises:
        ServingError: DEADLINE_EXCEEDED after the time-out.
    """
    try:
        number = _free.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
    except queue.Empty:
        raise ServingError(
            Code.DEADLINE_EXCEEDED, f"Deadline Exceeded: all {MAX_RUNS} decoders are busy"
        ) from None
    try:
        yield number
    finally:
        _free.put(number)
