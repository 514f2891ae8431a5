"""Entry point of the model server."""

import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import structlog

from bus import log as logging
from edge.modelserver import flags, runtime

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
        parsed = flags.parse(argv)  # before TensorFlow, which takes seconds to load
    except flags.FlagError as error:
        sys.stderr.write(f"modelserver: error: {error}\n")
        return 2
    if not structlog.is_configured():  # `gleaner modelserver` has configured it
        logging.configure()
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    # Before TensorFlow is loaded: a stop during the load must end the process in order as well.
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        runtime.prepare()
        from edge.modelserver import process  # noqa: PLC0415 - loads TensorFlow, so after the flags

        return process.run(parsed, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
