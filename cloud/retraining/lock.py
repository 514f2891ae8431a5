"""Whose turn it is to train: never two rounds at once in one folder of models."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import TransientError

_LOCK = ".round.lock"


class BusyError(TransientError):
    """Another round is under way."""


@contextmanager
def one_at_a_time(models: Path) -> Iterator[int]:
    """Hold the right to a round in a folder for the length of a block.

    The kernel takes the lock back when the last process dies that has its descriptor: the programs of a round
    inherit it, so that nobody starts another round beside what a killed trainer has left running.

    Yields:
        The descriptor.

    Raises:
        BusyError: Somebody else holds it.
    """
    models.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(models / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"models {models}", expected="no round under way", got="one") from None
        yield descriptor
    finally:
        os.close(descriptor)  # unlocking would take it from a program that is still there
