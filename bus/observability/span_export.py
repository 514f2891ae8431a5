"""Export spans with OpenTelemetry's SDK in the background; loaded only if traces are on."""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bus.config import ConfigError
from schemas.distribution import version

log = structlog.get_logger()

FLUSH_S = 2.0
"""Seconds that the end of a service may wait for the last spans to be sent."""
_REASON_CHARS = 200


class SpanExport:
    """A tracer whose spans are sent to an OTLP collector over HTTP.

    Bounded: the SDK's queue (OTEL_BSP_MAX_QUEUE_SIZE, 2048 spans) drops the oldest span when it is full. A
    batch that the collector does not take within OTEL_EXPORTER_OTLP_TIMEOUT (10 s) is dropped.

    Args:
        service: `service.name`, unless the environment has one.
        instance: `service.instance.id`, likewise.

    Raises:
        ConfigError: One of OpenTelemetry's environment variables has a wrong value.
    """

    api = trace

    def __init__(self, service: str, instance: str) -> None:
        named = {"service.name": service, "service.instance.id": instance, "service.version": version()}
        try:
            resource = Resource.create(named | dict(OTELResourceDetector().detect().attributes))
            self._exporter = ReportingExporter(OTLPSpanExporter())
            # Not at exit: it would wait for an absent collector, half a minute by default.
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._processor = BatchSpanProcessor(self._exporter)
        except (ValueError, RuntimeError, OSError) as error:
            raise ConfigError(f"cannot export traces: {error}", hint="check the variables OTEL_…") from None
        self._provider.add_span_processor(self._processor)
        self.tracer = self._provider.get_tracer("gleaner", version())

    async def __aenter__(self) -> Self:
        """Return itself; the SDK's thread runs already."""
        # Its only message is that the queue is full, once per span; the failed export is reported below.
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left, for at most `FLUSH_S`. If cancelled, it is dropped."""
        # In a separate thread that is never joined: the SDK waits for a request to a silent collector.
        closing = threading.Thread(target=self._provider.shutdown, name="traces.flush", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_S)
        if closing.is_alive():
            self._exporter.shutdown()  # ends the pause before a repetition
            log.warning("traces.not_flushed", waited_s=FLUSH_S)


class ReportingExporter(SpanExporter):
    """Pass spans to an exporter, and log its first failure and its recovery.

    Called in the SDK's thread.

    Args:
        exporter: Whose own log lines, one for each attempt, are kept out of the log.
    """

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._failed_at: float | None = None
        self._lost = 0
        self._ended = False
        logging.getLogger(trace_exporter.__name__).addFilter(_reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those of a failed export are lost and counted."""
        _reason.text = ""
        result = self._exporter.export(spans)
        if self._ended:  # the end of the service has logged that it did not wait for this one
            return result
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if self._failed_at is None:
                self._failed_at = time.monotonic()
                log.warning("traces.unsent", spans=len(spans), reason=_reason.text)
            else:
                log.debug("traces.unsent", spans=len(spans), reason=_reason.text)
        elif self._failed_at is not None:
            outage_s = round(time.monotonic() - self._failed_at, 1)
            log.info("traces.recovered", outage_s=outage_s, spans_lost=self._lost)
            self._failed_at, self._lost = None, 0
        return result

    def shutdown(self) -> None:
        """End it; a pause before a repetition ends at once."""
        self._ended = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # of the library

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: it keeps no spans."""
        return self._exporter.force_flush(timeout_millis)


class _LastReason(threading.local):
    """Keep the exporter's log lines out of the log, and the first one of an export of this thread."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Note what happened. Of an exception only its type: its text has the URL, which may hold a token."""
        if not self.text and isinstance(record.args, tuple):
            shown = (type(one).__name__ if isinstance(one, BaseException) else one for one in record.args)
            self.text = (record.msg % tuple(shown))[:_REASON_CHARS]
        return False


_reason = _LastReason()
