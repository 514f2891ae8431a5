"""Logging: structlog, readable on a terminal, JSON elsewhere, always on standard error."""

import logging
import sys

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", *, json: bool | None = None, **bound: str) -> None:
    """Set up logging for this process, once, from its entry point.

    Args:
        level: The lowest level shown, one of `LEVELS`.
        json: One JSON object a line; by default unless standard error is a terminal.
        bound: Values that stand on every line, such as the node.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        # Where rich is installed, the default shows the values of local variables: secrets too.
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(**bound)
    # paho and aiomqtt report through logging what bus.mqtt.connection raises anyway.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)


def _unchanged(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event
