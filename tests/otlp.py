"""A collector of traces for tests: takes OTLP over HTTP on loopback and keeps the spans."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bus.observability import span_export
from tests.conftest import DEADLINE_S


@dataclass(frozen=True)
class Received:
    """A span that was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int | float | bool]
    links: tuple[str, ...]
    error: str | None


class SpanCollector:
    """The spans that arrived so far."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.instances: set[str] = set()
        self.status = 200
        self.url = ""

    def named(self, name: str) -> list[Received]:
        """Return the spans whose name begins so, the earliest first."""
        found = (span for span in self.spans if span.name.startswith(name))
        return sorted(found, key=lambda span: span.start_ns)

    def children(self, parent: Received) -> dict[str, Received]:
        """Return the children of a span by name, the earliest of each."""
        latest_first = reversed(self.named(""))
        return {span.name: span for span in latest_first if span.parent_id == parent.span_id}

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = _values(resource.resource.attributes)
            self.instances.add(str(about["service.instance.id"]))
            for scope in resource.scope_spans:
                self.spans += [_received(str(about["service.name"]), span) for span in scope.spans]


@contextmanager
def span_collector() -> Iterator[SpanCollector]:
    """Run a collector for the length of a block."""
    collector = SpanCollector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.status == 200:
                assert self.path == "/v1/traces"
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def exported_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpanCollector]:
    """Run a collector to which all services of this process send their spans at once."""
    with span_collector() as spans:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setattr(span_export, "FLUSH_S", DEADLINE_S)  # a busy machine needs longer
        yield spans


def _received(service, span) -> Received:
    return Received(
        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
        span.start_time_unix_nano, span.end_time_unix_nano, _values(span.attributes),
        tuple(link.span_id.hex() for link in span.links),
        span.status.message if span.status.code == 2 else None,
    )  # fmt: skip


def _values(attributes) -> dict[str, str | int | float | bool]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
