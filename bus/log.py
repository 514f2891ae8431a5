"""Set up structlog: text on a terminal, JSON otherwise, always to standard error."""

import logging
import sys

import structlog

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
    # paho and aiomqtt log the same errors that bus.mqtt.connection raises.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)


def _unchanged(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event
