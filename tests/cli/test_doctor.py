import asyncio
from argparse import Namespace
from contextlib import asynccontextmanager

import pytest

from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import RawMessage
from cli.doctor import _Patient
from schemas.codec import encode
from schemas.messages import ServedModel, Status
from schemas.topics import STATUS
from tests.cli.conftest import gleaner
from tests.device.conftest import NODE, result

SERVED = ServedModel(name="pets", version=3, state="available")


def findings(out: str) -> dict[str, tuple[bool, str]]:
    """Return by subject whether a check passed, and what it found, with its advice behind."""
    found: dict[str, tuple[bool, str]] = {}
    for line in out.splitlines():
        if line.startswith("     → "):
            subject = list(found)[-1]
            found[subject] = found[subject][0], found[subject][1] + line
        else:
            subject, _, text = line[5:].partition(": ")
            found[subject] = line.startswith("ok "), text
    return found


@asynccontextmanager
async def reporting(address, model: ServedModel | None, trouble: str | None = None):
    """Report as an edge does for the length of a block."""
    bus = Bus(address, "reporting", presence=Presence(NODE, "edge"))
    await bus.report(model=model)
    bus.counters.add("photo.received", 9)
    bus.counters.add("photo.shed", 2)
    bus.counters.add("harvest.refused_cap-per-hour", 5)
    if trouble is not None:
        await bus.report_degraded("predict", trouble)
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(15):
        await bus.connected()
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def answering(edge):
    """An edge that rejects what has expired, as the real one does."""
    edge.reply = lambda photo: [result(photo, "rejected", code="expired")]
    return edge


async def test_all_well_is_0(answering, address, at):
    """With broker, edge, model and answer each check is `ok` and there is no advice."""
    async with reporting(address, SERVED):
        done = await gleaner("doctor", *at)
    found = findings(done.out)
    assert (done.code, done.err) == (0, "")
    assert list(found) == [
        "versions",
        "broker",
        "probe",
        "dropped",
        "edge edge-1",
        "model",
        "refused",
        "answer",
    ]
    assert all(passed for passed, _ in found.values())
    assert "mosquitto version" in found["broker"][1]
    assert found["model"][1] == "pets version 3 is served"
    assert found["refused"][1] == "harvest.refused_cap-per-hour 5, photo.shed 2 since the edge started"
    assert "→" not in done.out


async def test_its_photo_is_neither_classified_nor_left_behind(answering, address, at):
    """It asks with a photo that has expired, as a device of its own."""
    async with reporting(address, SERVED):
        await gleaner("doctor", *at)
    photo = answering.photos[0]
    assert photo.expires_at_ms == 1
    assert photo.device.startswith("doctor-")


async def test_without_a_broker_it_says_what_to_start(nowhere):
    """The first failure that hides all others is the last finding."""
    done = await gleaner("doctor", "--timeout", "1", *nowhere)
    found = findings(done.out)
    assert (done.code, done.err) == (1, "")
    assert list(found) == ["versions", "broker"]
    assert not found["broker"][0]
    assert "no connection to 127.0.0.1:1 within 1 s" in found["broker"][1]
    assert "`gleaner broker`" in found["broker"][1]


async def test_without_an_edge_it_says_what_to_start(at):
    """A broker alone: no report, no model, no answer, and for each what to do."""
    done = await gleaner("doctor", "--timeout", "1", *at)
    found = findings(done.out)
    assert done.code == 1
    assert found["broker"][0]
    assert "never reported" in found["edge edge-1"][1]
    assert "`gleaner edge --node edge-1`" in found["edge edge-1"][1]
    for subject in ("model", "answer"):
        passed, text = found[subject]
        assert not passed
        assert "→" in text


async def test_an_edge_that_was_stopped_is_to_be_started(address, at):
    """Its last word is why it is offline."""
    async with reporting(address, SERVED):
        pass
    found = findings((await gleaner("doctor", "--timeout", "1", *at)).out)
    passed, text = found["edge edge-1"]
    assert not passed
    assert "offline" in text
    assert "it was stopped" in text
    assert "start it with `gleaner edge --node edge-1`" in text


async def test_an_edge_in_trouble_says_why(answering, address, at):
    """A degraded edge and a model that is not served are told with the edge's own reasons."""
    failed = ServedModel(name="pets", state="failed", reason="no such file")
    async with reporting(address, failed, "model server: expected an answer, got none"):
        done = await gleaner("doctor", *at)
    found = findings(done.out)
    assert done.code == 1
    assert "degraded" in found["edge edge-1"][1]
    assert "expected an answer, got none" in found["edge edge-1"][1]
    assert "pets is failed: no such file" in found["model"][1]
    assert "`gleaner modelserver`" in found["model"][1]
    assert found["answer"][0]


async def test_a_report_of_long_ago_is_no_good(edge, at):
    """A retained status may be that of an edge whose will got lost."""
    status = Status(
        node=NODE, name="edge", state="online", at_ms=1, since_ms=1, software="1", run_id="1", model=SERVED
    )
    await edge.bus.publish_bytes(STATUS.name(node=NODE, name="edge"), encode(STATUS, status), retain=True)
    found = findings((await gleaner("doctor", "--timeout", "1", *at)).out)
    assert not found["edge edge-1"][0]


async def test_messages_dropped_by_the_broker_are_a_failure(at):
    """Mosquitto's counter of dropped messages is read, and the setting named that prevents it."""
    options = Namespace(
        node=NODE, timeout=1.0, config=None, broker=None, username=None, ca=None, cert=None, key=None
    )
    patient = _Patient(options)
    patient._sys_dropped.put_nowait(RawMessage("$SYS/broker/publish/messages/dropped", b"3", retained=True))
    finding = await patient.dropped()
    assert (finding.passed, finding.found) == (False, "3 messages since the broker started")
    assert "max_queued_messages 1000000" in finding.advice
