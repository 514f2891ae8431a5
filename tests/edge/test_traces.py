"""Traces of real services, received by a collector of traces."""

import asyncio
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
from structlog.testing import capture_logs

from bus.observability import span_export
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from device import service as device_service
from device.config import DeviceConfig
from schemas.codec import content_id
from schemas.messages import Receipt
from schemas.topics import RECEIPT
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.nodes import (
    NODE,
    Observer,
    device,
    edge_running,
    enveloped,
    photo,
    photo_id,
    station,
)
from tests.otlp import exported_spans

TRACE_ID, SPAN_ID = "5b8aa5a2d2c872e8321cf37308d69df2", "051581bf3cb55c13"
FROM_OUTSIDE = f"00-{TRACE_ID}-{SPAN_ID}-01"
PHOTO, RESULT = "gleaner/v1/photo/{node}/{device}", "gleaner/v1/result/{node}/{device}"
SAMPLE, RECEIPTS = "gleaner/v1/sample/{node}", "gleaner/v1/receipt/{node}"


@pytest.fixture
def spans(monkeypatch):
    """A collector of traces, to which all services of this process send theirs at once."""
    with exported_spans(monkeypatch) as spans:
        yield spans


@asynccontextmanager
async def background(*services):
    """Run services for the length of a block."""
    tasks = [asyncio.create_task(service) for service in services]
    try:
        yield
        assert not [task for task in tasks if task.done()], "a service ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_trace_goes_from_the_photo_to_the_receipt(config, tmp_path, spans):
    """The sample waits on the edge's disk, over a restart of the edge; its trace continues anyway."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(photo(1, "red"))
    camera = DeviceConfig(
        broker=config.broker, camera=f"folder:{tmp_path / 'photos'}", state_dir=str(tmp_path / "device")
    )
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await device_service.run(camera, lambda _: None)
        await seen.status("offline")
        receiving = CollectorConfig(broker=config.broker, dataset=str(tmp_path / "dataset.lance"))
        async with background(collector.run(receiving)):
            await seen.status("online", "collector")
            async with edge_running(config):
                await eventually(lambda: bool(spans.named(f"settle {SAMPLE}")))
    assert len({span.trace_id for span in spans.spans}) == 1
    (root,) = (span for span in spans.spans if not span.parent_id)
    shown = list(drawn(spans, root))
    assert shown == [
        f"gleaner-device create {PHOTO}",
        f"  gleaner-edge process {PHOTO}",
        "    gleaner-edge harvest",
        f"      gleaner-edge create {SAMPLE}",
        f"        gleaner-collector process {SAMPLE}",
        f"          gleaner-collector publish {RECEIPTS}",
        f"            gleaner-edge settle {SAMPLE}",
        "          gleaner-collector store",
        "    gleaner-edge predict",
        f"    gleaner-edge publish {RESULT}",
        f"      gleaner-device settle {PHOTO}",
        "    gleaner-edge record",
        "    gleaner-edge validate",
    ]
    # Either may have been sent twice, on a busy machine: the first answer is the one that counts.
    (answered, *_), (settled, *_) = spans.named(f"process {PHOTO}"), spans.named(f"settle {SAMPLE}")
    result = seen.results[-1]
    wanted = {
        "photo_id": result.photo_id,
        "device": "pi-1",
        "harvest": "auto",
        "model_version": 1,
        "status": "ok",
    }
    assert {name: answered.attributes.get(f"gleaner.{name}") for name in wanted} == wanted
    assert answered.attributes["messaging.destination.name"] == PHOTO
    assert (settled.attributes["gleaner.photo_id"], settled.attributes["gleaner.status"]) == (
        result.photo_id,
        "stored",
    )
    assert spans.instances == {f"{NODE}.edge", f"{NODE}.pi-1", "cloud.collector"}
    assert all(span.start_ns <= span.end_ns for span in spans.spans)
    assert all(root.start_ns <= span.start_ns for span in spans.spans)


def drawn(spans, span, depth=0):
    """Yield a tree of spans as lines, siblings by name."""
    yield f"{'  ' * depth}{span.service} {span.name}"
    for _, child in sorted(spans.children(span).items()):
        yield from drawn(spans, child, depth + 1)


async def test_anybody_may_begin_a_trace(config, spans):
    """The trace of a message from outside continues; a bare image begins one; a malformed one is none.

    Photos that share a call to the model server have a step each, linked to one another.
    """
    image = photo(2, "red")
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red"), trace=FROM_OUTSIDE))
        await seen.send(image)
        malformed = msgspec.msgpack.decode(enveloped(3, photo(3, "red"))) | {"trace": "00-0-0-01"}
        await seen.send(msgspec.msgpack.encode(malformed))
        answers = [await seen.answer(one) for one in (photo_id(1), content_id(image), photo_id(3))]
    joined, *begun = (answer.trace.split("-") for answer in answers)
    assert joined[1] == TRACE_ID
    assert len({TRACE_ID, *(trace_id for _, trace_id, _, _ in begun)}) == 3
    processed = {span.attributes["gleaner.photo_id"]: span for span in spans.named(f"process {PHOTO}")}
    parents = [processed[answer.photo_id].parent_id for answer in answers]
    assert parents == [SPAN_ID, "", ""]
    steps = spans.named("predict")
    assert {step.parent_id for step in steps} == {span.span_id for span in processed.values()}
    for step in steps:
        assert (len(step.links) > 0) == (step.attributes["gleaner.batch_size"] > 1)


async def test_a_photo_that_is_sent_again_is_answered_in_its_own_trace(config, spans):
    """The recorded result answers a second photo with the same id; the trace is not the first one's."""
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red"), trace=FROM_OUTSIDE))
        await seen.answer(photo_id(1))
        await seen.send(enveloped(1, photo(1, "red"), trace=FROM_OUTSIDE.replace(TRACE_ID, "7" * 32)))
        await eventually(lambda: len(seen.results) == 2)
    assert [result.trace.split("-")[1] for result in seen.results] == [TRACE_ID, "7" * 32]


@pytest.mark.parametrize(
    ("listens", "timeout_s", "said"),
    [(False, 0.1, "traces.unsent"), (True, 2 * DEADLINE_S, "traces.not_flushed")],
    ids=["refuses", "silent"],
)
async def test_an_absent_collector_of_traces_delays_and_loses_no_photo(
    config, monkeypatch, tmp_path, caplog, listens, timeout_s, said
):
    """Whether its address refuses connections or never answers; the log has one warning.

    A service that waited for a silent one would answer no photo before the deadline of this test.
    """
    monkeypatch.setattr(span_export, "FLUSH_S", 0.3)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(timeout_s))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if not listens:
            silent.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with capture_logs() as logged:
            async with station(config) as seen, device(seen, tmp_path) as outbox:
                for number in range(5):
                    payload = enveloped(number, photo(number, "red"))
                    await outbox.put(photo_id(number), f"gleaner/v1/photo/{NODE}/pi-1", payload)
                answers = [await seen.answer(photo_id(number)) for number in range(5)]
                await eventually(lambda: listens or any(line["event"] == said for line in logged))
    assert {answer.status for answer in answers} == {"ok"}
    warned = [line["event"] for line in logged if line["log_level"] == "warning"]
    assert [event for event in warned if event.startswith("traces.")] == [said]
    assert url not in str(logged)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_without_traces_nothing_is_written_that_was_not_before(config, monkeypatch):
    """Result and sample have no field `trace`, unless the photo has one, which is passed on."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red")))
        await seen.send(enveloped(2, photo(2, "blue"), trace=FROM_OUTSIDE))
        await seen.answer(photo_id(1))
        await seen.answer(photo_id(2))
        await eventually(lambda: {sample.photo_id for sample in seen.samples} >= {photo_id(1), photo_id(2)})
        for number in (1, 2):
            receipt = Receipt(photo_id=photo_id(number), node=NODE, status="stored", received_at_ms=1)
            await seen.bus.publish(RECEIPT, receipt, node=NODE)
    raw = [seen.raw_results.get_nowait().payload for _ in range(seen.raw_results.qsize())]
    assert {msgspec.json.decode(one)["photo_id"]: b'"trace"' in one for one in raw} == {
        photo_id(1): False,
        photo_id(2): True,
    }
    assert {sample.photo_id: sample.trace for sample in seen.samples} == {
        photo_id(1): None,
        photo_id(2): FROM_OUTSIDE,
    }


def test_the_sdk_is_not_loaded_unless_traces_are_on():
    """A service imports no module of OpenTelemetry, whose packages are of an extra."""
    code = "import sys, device.service; sys.exit(any('opentelemetry' in module for module in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
