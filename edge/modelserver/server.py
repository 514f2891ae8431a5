"""The entry point: flags first, so that a mistake is told at once; then TensorFlow, which takes seconds."""

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

    When it listens it logs one line, `modelserver.listening`, with its `port`.

    Args:
        argv: the arguments after the program's name; None for those of this process.

    Returns:
        The exit code: 0 after a stop, 1 where it could not start or failed, 2 for a bad command line.
    """
    try:
        given = flags.parse(argv)
    except flags.FlagError as error:
        sys.stderr.write(f"modelserver: error: {error}\n")
        return 2
    if not structlog.is_configured():
        logging.configure()
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        runtime.prepare()
        from edge.modelserver import process  # noqa: PLC0415 - loads TensorFlow, after the flags are known good

        return process.run(given, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
