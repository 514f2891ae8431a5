"""Set up structlog: text on a terminal, JSON otherwise, always to standard error."""

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

from bus.optional_packages import not_found
from schemas.text import escaped

# It would load rich to print tracebacks, which `configure` prevents: a third of the time to load structlog.
with not_found("rich"):
    import structlog

_STDERR_BYTES = 8192
_hiding = threading.RLock()
"""Two threads that hid standard error at once could each restore what the other one has put there."""

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", *, json: bool | None = None, **bound: str) -> None:
    """Set up logging for this process; call once, from its entry point.

    Args:
        level: Lowest level that is logged, one of `LEVELS`.
        json: Whether to write one JSON object per line; None: unless standard error is a terminal.
        bound: Values for every line, for example the node.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        # With rich installed, the default formatter prints the values of local variables, also secrets.
        else structlog.dev.ConsoleRenderer(exception_formatter=_escaped_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _escape_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_loggers(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(**bound)
    _capture_libraries()
    # paho and aiomqtt log the same errors that bus.mqtt.connection.connection raises.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)


class _Forward(logging.Handler):
    """Turn records of the standard library's logging into events: of asyncio, of warnings, of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record under the event `library.logged`."""
        structlog.get_logger().log(
            record.levelno,
            "library.logged",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def _capture_libraries() -> None:
    """Log warnings, and what libraries log from `warning` on, as events instead of plain lines."""
    logging.captureWarnings(True)  # noqa: FBT003  # the library's signature
    root = logging.getLogger()
    # Only ours are replaced: a test runner adds its own handlers.
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _Forward)]
    root.addHandler(_Forward(logging.WARNING))


@contextmanager
def stderr_captured() -> Iterator[None]:
    """Turn what C libraries write to standard error into events `stderr.written`, for the length of a block.

    Bounded: a library that writes more than a pipe holds, while this process cannot read it, loses the rest.
    """
    own = os.dup(2)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # else a library that holds the GIL could block on our thread
    os.dup2(writing, 2)
    os.close(writing)
    with os.fdopen(own, "w", buffering=1) as stream:
        structlog.configure(logger_factory=_loggers(stream))
        thread = threading.Thread(target=_log_lines, args=(reading,), name="log.stderr", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.dup2(own, 2)  # closes the last writing end, which ends the thread
            thread.join()
            structlog.configure(logger_factory=_loggers(sys.stderr))
            with suppress(OSError):  # a last line on a full disk; closing again then succeeds
                stream.close()


class _LossyStream:
    """A text stream whose failures lose lines and nothing else: a full disk must not stop a service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _loggers(stream: TextIO) -> structlog.PrintLoggerFactory:
    return structlog.PrintLoggerFactory(cast(TextIO, _LossyStream(stream)))


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Hide what C libraries write to standard error in a block; what Python writes there still appears.

    For calls that report errors as exceptions, and print notes for their own developers at no level that
    could be changed: TensorFlow's converter and LiteRT.
    """
    if sys.__stderr__ is None:  # this process was started with it closed
        yield
        return
    with _hiding, ExitStack() as ending:
        visible = os.dup(2)
        ending.callback(os.close, visible)
        if sys.stderr is sys.__stderr__:
            sys.stderr.flush()
            stream = os.fdopen(visible, "w", buffering=1, errors="backslashreplace", closefd=False)
            ending.enter_context(stream)
            ending.callback(setattr, sys, "stderr", sys.stderr)
            sys.stderr = stream
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        ending.callback(os.dup2, visible, 2)
        yield


def _log_lines(reading: int) -> None:
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while written := pipe.read(_STDERR_BYTES):
            text = written.decode(errors="replace").strip()
            if text:
                structlog.get_logger().warning("stderr.written", text=text)


def _escape_values(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape the texts: only of other values does the renderer print the repr, which is escaped."""
    return {escaped(key): escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _escaped_traceback(stream: TextIO, exception: structlog.typing.ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exception)
    stream.write("".join(f"{escaped(line)}\n" for line in plain.getvalue().split("\n")))
