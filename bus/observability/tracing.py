"""Traces by OpenTelemetry: spans that follow its semantic conventions for messaging.

A message carries the context of its trace in the field `trace`. Traces are off unless OpenTelemetry's own
environment variables switch them on; only then is its SDK loaded, and code that makes spans has a `Tracer`.
"""

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bus.config import ConfigError
from schemas.distribution import install_command
from schemas.field_types import MAX_TEXT_CHARS
from schemas.topics import Topic

if TYPE_CHECKING:
    from opentelemetry import trace as otel

Fact = str | int | float | bool | None
Operation = Literal["create", "publish", "process", "settle"]
Kind = Literal["internal", "client", "producer", "consumer"]

# MQTT's word for sending is `publish`; the type is the conventions' own.
_TYPES: dict[Operation, tuple[str, Kind]] = {
    "create": ("create", "producer"),
    "publish": ("send", "producer"),
    "process": ("process", "consumer"),
    "settle": ("settle", "client"),
}
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = ("otlp", "otlp_proto_http")
_PROTOCOL = "http/protobuf"


class Form(NamedTuple):
    """What all spans of one sort have in common."""

    name: str
    kind: Kind
    attributes: Mapping[str, str] = {}


class Span:
    """A step of a trace, begun and not ended. One that is never ended is not exported.

    Times are seconds of the monotonic clock, as everywhere; the SDK gets them as wall-clock time.

    Args:
        tracer: Of this process.
        span: Of the SDK.
    """

    def __init__(self, tracer: "Tracer", span: "otel.Span") -> None:
        self._tracer = tracer
        self._span = span

    @property
    def context(self) -> "otel.SpanContext":
        """Its ids, and whether it is sampled."""
        return self._span.get_span_context()

    @property
    def traceparent(self) -> str:
        """Its context, for the field `trace` of a message."""
        context = self.context
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def begin(self, operation: Operation, topic: Topic[Any], **facts: Fact) -> "Span":
        """Return a child for an operation on a message of a topic."""
        return self._tracer.child(self._span, _messaging(operation, topic), facts)

    def step(
        self, name: str, kind: Kind = "internal", *, since: float | None = None, **facts: Fact
    ) -> "Span":
        """Return a child for a piece of work.

        Args:
            name: Of the work.
            kind: `client` for a call to another service.
            since: When it began; now if None.
            facts: Attributes.
        """
        return self._tracer.child(self._span, Form(name, kind), facts, since)

    def link(self, other: "Span") -> None:
        """Refer to a span of another trace that is about the same work."""
        self._span.add_link(other.context)

    def end(self, error: object = None, **facts: Fact) -> None:
        """End it now; with an error as failed."""
        self._span.set_attributes(_attributes(facts))
        if error is not None:
            self._tracer.mark_failed(self._span, error)
        self._span.end()


class Tracer:
    """Begins the spans of one process.

    Args:
        api: The module `opentelemetry.trace`.
        tracer: Of the SDK.
    """

    def __init__(self, api: ModuleType, tracer: "otel.Tracer") -> None:
        self._api = api
        self._tracer = tracer

    def begin(
        self,
        operation: Operation,
        topic: Topic[Any],
        *,
        trace: str | None = None,
        since: float | None = None,
        **facts: Fact,
    ) -> Span:
        """Return a span for an operation on a message.

        Args:
            operation: By the conventions for messaging.
            topic: Of the message. Spans are named after its pattern, of which there are few.
            trace: Field of the message, from anybody; None begins a trace, for which the sampler decides.
            since: When it began; now if None.
            facts: Attributes, of which None is left out.
        """
        parent = None if trace is None else self._remote(trace)
        return self.child(parent, _messaging(operation, topic), facts, since)

    def child(
        self,
        parent: "otel.Span | None",
        form: Form,
        facts: Mapping[str, Fact],
        since: float | None = None,
    ) -> Span:
        """Return a span below another one, as `Span.begin` and `Span.step` do."""
        from opentelemetry.context import Context  # noqa: PLC0415  # loaded by now

        # An empty context, never the current one: tasks of this process work on many photos.
        context = Context() if parent is None else self._api.set_span_in_context(parent, Context())
        span = self._tracer.start_span(
            form.name,
            context,
            kind=self._api.SpanKind[form.kind.upper()],
            attributes=_attributes({**form.attributes, **facts}),
            start_time=None if since is None else _wall_ns(since),
        )
        return Span(self, span)

    def mark_failed(self, span: "otel.Span", error: object) -> None:
        """Note why a step failed."""
        reason = str(error)[:MAX_TEXT_CHARS]
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, reason))
        span.set_attribute("error.type", type(error).__name__ if isinstance(error, Exception) else "_OTHER")

    def _remote(self, trace: str) -> "otel.Span":
        """Return the span of the sender. With ids that are all zeros it is none, and a trace begins."""
        _, trace_id, span_id, flags = trace.split("-")
        sampled = self._api.TraceFlags(int(flags, 16) & self._api.TraceFlags.SAMPLED)
        context = self._api.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled
        )
        remote: otel.Span = self._api.NonRecordingSpan(context)
        return remote


def shared_step(
    spans: Sequence[Span | None],
    name: str,
    kind: Kind = "internal",
    *,
    since: float,
    error: object = None,
    **facts: Fact,
) -> None:
    """Record work that was done for several photos at once: a step in the trace of each, with links.

    The first step is linked to all others, and each of these to the first: as many links as steps, not their
    square.
    """
    steps = [span.step(name, kind, since=since, **facts) for span in spans if span is not None]
    for step in steps[1:]:
        steps[0].link(step)
        step.link(steps[0])
    for step in steps:
        step.end(error, batch_size=len(steps))


@asynccontextmanager
async def traces(service: str, instance: str) -> AsyncIterator[Tracer | None]:
    """Yield the tracer of a service for the length of a block, or None if traces are off.

    Spans are exported in the background from a bounded queue, which drops the oldest when it is full. At the
    end, what is left is sent within a deadline.

    Args:
        service: `service.name`, unless OTEL_SERVICE_NAME names it.
        instance: `service.instance.id`.

    Raises:
        ConfigError: Traces are switched on, and the packages are missing or a variable has a wrong value.
    """
    if not wanted(os.environ):
        yield None
        return
    try:
        from bus.observability.span_export import SpanExport  # noqa: PLC0415  # of an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"cannot export traces, which OTEL_… switches on: the package {error.name!r} is not installed",
            hint=f"install it with: {install_command('traces')}",
        ) from None
    async with SpanExport(service, instance) as export:
        yield Tracer(export.api, export.tracer)


def wanted(environment: Mapping[str, str]) -> bool:
    """Return True if OpenTelemetry's environment variables switch traces on.

    Raises:
        ConfigError: They ask for an exporter or a protocol that Gleaner does not have.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none" or not (exporter or any(environment.get(name) for name in _ENDPOINTS)):
        return False
    if exporter and exporter not in _EXPORTERS:
        raise ConfigError("OTEL_TRACES_EXPORTER", expected="otlp or none", got=repr(exporter))
    chosen = next(((name, value) for name in _PROTOCOLS if (value := environment.get(name))), None)
    if chosen is not None and chosen[1] != _PROTOCOL:
        raise ConfigError(chosen[0], expected=_PROTOCOL, got=repr(chosen[1]))
    return True


def _messaging(operation: Operation, topic: Topic[Any]) -> Form:
    """Return the form of a span for an operation on a message."""
    kind_of_operation, kind = _TYPES[operation]
    attributes = {
        "messaging.system": "mqtt",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind_of_operation,
        # The pattern in both: names of devices would make too many values to group by.
        "messaging.destination.name": topic.pattern,
        "messaging.destination.template": topic.pattern,
    }
    return Form(f"{operation} {topic.pattern}", kind, attributes)


def _attributes(facts: Mapping[str, Fact]) -> dict[str, str | int | float | bool]:
    """Return facts as attributes: a name without a dot is one of Gleaner's own."""
    return {
        name if "." in name else f"gleaner.{name}": value
        for name, value in facts.items()
        if value is not None
    }


def _wall_ns(moment: float) -> int:
    """Return a moment of the monotonic clock as nanoseconds since 1970."""
    return time.time_ns() - round((time.monotonic() - moment) * 1e9)
