"""Exclusive lock on a file between processes, released by the kernel when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.02


class LockHeldError(Exception):
    """Another process holds the lock.

    Attributes:
        holder: What the holder wrote about itself, empty if nothing.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def exclusive_lock(path: Path, *, holder: str = "", timeout_s: float = 0.0) -> Iterator[int]:
    """Hold an exclusive `flock` on a file for the length of a block; the file is created and stays.

    Closing the descriptor, not unlocking it, ends the lock: child processes that inherited it keep the lock
    until the last of them ends.

    Args:
        path: The lock file; its folder exists.
        holder: Written to the file, for the message of a process that finds it locked.
        timeout_s: How long to wait for another holder. Blocks the calling thread.

    Yields:
        The locked descriptor.

    Raises:
        LockHeldError: Another process held it for all of `timeout_s`.
        OSError: The file cannot be opened.
    """
    # Not truncated here: the text of a present holder must stay readable.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, timeout_s)
        if holder:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a blocking flock has no deadline
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockHeldError(os.pread(descriptor, 1024, 0).decode(errors="replace")) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            return
