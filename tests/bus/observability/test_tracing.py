"""Spans and their export, with the real SDK and a collector of traces on loopback."""

import asyncio
import re
import socket
import sys
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from bus.config import ConfigError
from bus.observability import span_export
from bus.observability.tracing import shared_step, traces, wanted
from schemas.distribution import install_command
from schemas.topics import PHOTO, RESULT
from tests.conftest import DEADLINE_S, eventually
from tests.otlp import exported_spans

URL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
OUTSIDE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans(monkeypatch):
    """A collector of traces, named by the environment."""
    with exported_spans(monkeypatch) as spans:
        yield spans


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        (URL, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (URL | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (URL | {"OTEL_SDK_DISABLED": "True"}, False),
        (URL | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({"OTEL_SERVICE_NAME": "door", "OTEL_TRACES_SAMPLER": "always_on"}, False),
    ],
)
def test_the_standard_variables_switch_traces_on(environment, on):
    """An address or an exporter does; `none` and OTEL_SDK_DISABLED switch them off."""
    assert wanted(environment) is on


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: expected otlp or none, got 'zipkin'",
        ),
        (
            URL | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got 'grpc'",
        ),
    ],
)
def test_what_gleaner_does_not_have_is_a_sentence(environment, sentence):
    """Another exporter or protocol is not ignored: nobody would know why no span arrives."""
    with pytest.raises(ConfigError) as caught:
        wanted(environment)
    assert str(caught.value) == sentence


async def test_missing_packages_are_a_sentence_with_the_command_to_type(spans, monkeypatch):
    """Traces that are switched on without the extra end the service at once."""
    monkeypatch.delitem(sys.modules, "bus.observability.span_export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=rf"{re.escape(install_command('traces'))}$"):
        async with traces("gleaner-test", "here"):
            pass


async def test_a_wrong_value_of_the_sdk_is_a_sentence(spans, monkeypatch):
    """What the SDK refuses is an error of the configuration, not a traceback."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(ConfigError, match=r"cannot export traces: .*queue"):
        async with traces("gleaner-test", "here"):
            pass


async def test_a_trace_from_outside_goes_on(spans, monkeypatch):
    """Only its ids and whether it is sampled are taken; ids of zeros, which are invalid, begin a trace."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "door")
    async with traces("gleaner-test", "here") as tracer:
        joined = tracer.begin("process", PHOTO, trace=OUTSIDE[:-2] + "ff", photo_id="7", node=None)
        joined.begin("publish", RESULT).end()
        joined.end(TimeoutError("too late"), status="ok")
        begun = tracer.begin("process", PHOTO, trace=f"00-{'0' * 32}-{'0' * 16}-01")
        begun.end()
    (first, second), (published,) = spans.named("process"), spans.named("publish")
    assert (first.service, first.trace_id, first.parent_id) == ("door", "a" * 32, "b" * 16)
    assert published.parent_id == first.span_id == joined.traceparent[36:52]
    assert (first.error, first.attributes["error.type"]) == ("too late", "TimeoutError")
    own = {name: value for name, value in first.attributes.items() if name.startswith("gleaner.")}
    assert own == {"gleaner.photo_id": "7", "gleaner.status": "ok"}
    assert second.parent_id == ""
    assert len({first.trace_id, second.trace_id, "0" * 32}) == 3
    assert spans.instances == {"here"}


async def test_the_root_decides_whether_a_trace_is_sampled(spans, monkeypatch):
    """The context in the message has the flag, and all later components follow it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with traces("gleaner-test", "here") as tracer:
        unsampled = tracer.begin("process", PHOTO)
        shared_step([unsampled, None], "predict", since=0.0)
        unsampled.end()
        tracer.begin("process", PHOTO, trace=unsampled.traceparent).end()
        tracer.begin("settle", PHOTO, trace=OUTSIDE).end()
    assert int(unsampled.traceparent[-2:], 16) & 1 == 0
    assert [span.name for span in spans.spans] == ["settle gleaner/v1/photo/{node}/{device}"]


async def test_work_for_several_photos_is_a_step_in_each_trace(spans):
    """The first step is linked to the others, and each of these to the first."""
    async with traces("gleaner-test", "here") as tracer:
        photos = [tracer.begin("process", PHOTO) for _ in range(3)]
        shared_step(photos, "predict", "client", since=0.0, error=OSError("gone"), version=2)
        shared_step(photos[:1], "record", since=0.0)
    steps = {span.parent_id: span for span in spans.named("predict")}
    first, *others = (steps[photo.traceparent[36:52]] for photo in photos)
    assert first.links == tuple(other.span_id for other in others)
    assert [other.links for other in others] == [(first.span_id,)] * 2
    assert {step.attributes["gleaner.batch_size"] for step in steps.values()} == {3}
    assert {step.error for step in steps.values()} == {"gone"}
    assert spans.named("record")[0].links == ()


async def test_an_outage_of_the_collector_has_two_lines_in_the_log(spans, monkeypatch):
    """The first failure is a warning, later ones are not, and the recovery reports what was lost."""
    spans.status = 404
    with capture_logs() as logged:
        async with traces("gleaner-test", "here") as tracer:
            for lost in range(3):
                tracer.begin("process", PHOTO).end()
                await eventually(lambda lost=lost: len(lines(logged, "traces.unsent")) > lost)
            spans.status = 200
            tracer.begin("process", PHOTO).end()
            await eventually(lambda: bool(lines(logged, "traces.recovered")))
    assert [line["log_level"] for line in lines(logged, "traces.unsent")] == ["warning", "debug", "debug"]
    assert "404" in logged[0]["reason"]
    assert lines(logged, "traces.recovered")[0]["spans_lost"] == 3
    assert len(spans.spans) == 1


async def test_the_end_waits_for_a_silent_collector_no_longer_than_its_deadline(monkeypatch):
    """A service that is stopped does not wait until a request to an absent collector times out."""
    monkeypatch.setattr(span_export, "FLUSH_S", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(2 * DEADLINE_S))
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as logged:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with AsyncExitStack() as stack:
            tracer = await stack.enter_async_context(traces("gleaner-test", "here"))
            tracer.begin("process", PHOTO).end()
            async with asyncio.timeout(DEADLINE_S / 10):
                await stack.aclose()
    assert [line["event"] for line in logged] == ["traces.not_flushed"]


def lines(logged, event):
    """Return the lines of an event."""
    return [line for line in logged if line["event"] == event]
