"""Entry point of the model server."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import structlog

from bus import log as logging
from edge.modelserver import flags
from schemas.errors import PermanentError
from schemas.text import escaped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the model server until SIGTERM or SIGINT. Call it in the main thread.

    Logs `modelserver.listening` with the `port` once it accepts calls.

    Args:
        argv: arguments without the program name; None for those of this process.

    Returns:
        The exit code: 0 after a stop, 1 if it could not start or failed, 2 for an invalid command line.
    """
    try:
        parsed = flags.parse(argv)  # before the runtime, which takes seconds to load
    except flags.FlagError as error:
        sys.stderr.write(f"modelserver: error: {escaped(error)}\n")
        return 2
    if not structlog.is_configured():  # `gleaner modelserver` has configured it
        logging.configure()
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    # Photos are in parallel already: BLAS would only add threads that wait actively for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Before the runtime is loaded: a stop during the load must end the process in order as well.
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        # Both load numpy and gRPC: after the flags.
        from edge.modelserver import process  # noqa: PLC0415 - see above
        from edge.modelserver.runtimes.selection import select_runtime  # noqa: PLC0415 - see above

        return process.run(parsed, select_runtime(parsed), stop)
    except PermanentError as error:  # the runtime is not installed
        sys.stderr.write(f"modelserver: error: {escaped(error)}\n")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
