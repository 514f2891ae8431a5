"""End a child process with its parent, even if that is killed."""

import ctypes
import os
import signal
from collections.abc import Callable

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def ending_with_parent() -> Callable[[], None] | None:
    """Return what a new process calls to get SIGTERM when its parent ends, for `preexec_fn`.

    The parent is the thread that starts the process: the main one, or another that lives as long.

    Returns:
        None where the kernel has no such signal; only Linux has.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before
            os._exit(1)

    return ask
