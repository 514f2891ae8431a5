import asyncio
import contextlib
from argparse import Namespace
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from bus.config import Broker, ClientConfig, Tls
from bus.diagnosis.status_checks import component_finding
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.session import connected
from bus.mqtt.subscription import RawMessage
from bus.security import certificates
from cli.configurations import Recognised
from cli.doctor_checks import Checks
from cli.doctor_machine import machine_findings
from device.config import DeviceConfig
from schemas.codec import encode
from schemas.messages import ServedModel, Status
from schemas.topics import STATUS
from tests.bus.mqtt.test_optional_subscription import refusing
from tests.cli.conftest import gleaner, start
from tests.conftest import DEADLINE_S, eventually
from tests.device.conftest import NODE, result

SERVED = ServedModel(name="pets", version=3, state="available")


def findings(out: str) -> dict[str, tuple[bool, str]]:
    """Return for each subject whether it passed, and the text with the advice."""
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
    """Publish the status of an edge for the length of a block."""
    bus = Bus(address, "reporting", presence=Presence(NODE, "edge"))
    await bus.report(model=model)
    bus.counters.add("photo.received", 9)
    bus.counters.add("photo.shed", 2)
    bus.counters.add("harvest.refused_cap-per-hour", 5)
    if trouble is not None:
        await bus.report_degraded("predict", trouble)
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(DEADLINE_S):
        await bus.connected()
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def answering(edge):
    """An edge that rejects photos as expired, as the real one would."""
    edge.reply = lambda photo: [result(photo, "rejected", code="expired")]
    return edge


async def test_all_checks_pass(answering, address, at):
    """With a broker, an edge and a model each check is `ok`, without advice, and the exit code is 0."""
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


async def test_the_photo_of_the_doctor_has_expired(answering, address, at):
    """It is sent under a separate device name, and can be neither classified nor harvested."""
    async with reporting(address, SERVED):
        await gleaner("doctor", *at)
    photo = answering.photos[0]
    assert photo.expires_at_ms == 1
    assert photo.device.startswith("doctor-")


async def test_an_edge_that_defers_says_why(edge, address, at):
    """Its reason is told in words, for example that its disk is full."""
    edge.reply = lambda photo: [result(photo, "deferred", reason="disk is full; free space on that disk")]
    async with reporting(address, SERVED):
        done = await gleaner("doctor", *at)
    passed, text = findings(done.out)["answer"]
    assert not passed
    assert text.endswith("the photo was deferred: disk is full; free space on that disk")


async def test_a_broker_elsewhere_is_not_started_here():
    """Where a name is wrong or a machine away, `gleaner broker` on this machine would not help."""
    done = await gleaner("doctor", "--timeout", "1", "--broker", "nowhere.invalid")
    assert done.code == 1
    assert (
        "check that nowhere.invalid:1883 is right and that its broker listens for other machines" in done.out
    )


async def test_a_reader_that_leaves_is_not_an_error(nowhere):
    """`gleaner doctor | head -1` exits with 0 and prints no error, at any stage of the checks."""
    process = await start("doctor", "--timeout", "1", *nowhere)
    async with asyncio.timeout(DEADLINE_S):
        await process.stdout.readline()
        process.stdout._transport.close()
        errors = await process.stderr.read()
        assert (await process.wait(), errors) == (0, b"")


async def test_without_a_broker_no_other_check_runs(nowhere):
    """The unreachable broker is the last finding, with the command that starts one."""
    done = await gleaner("doctor", "--timeout", "1", *nowhere)
    found = findings(done.out)
    assert (done.code, done.err) == (1, "")
    assert list(found) == ["versions", "broker"]
    assert not found["broker"][0]
    assert "no connection to 127.0.0.1:1 in 1 s" in found["broker"][1]
    assert "'gleaner broker'" in found["broker"][1]


async def test_without_an_edge_each_failure_has_advice(at):
    """With only a broker the checks of edge, model and answer fail, each with advice."""
    done = await gleaner("doctor", "--timeout", "3", *at)
    found = findings(done.out)
    assert done.code == 1
    assert found["broker"][0]
    assert "no status on this broker" in found["edge edge-1"][1]
    assert "'gleaner edge --node edge-1'" in found["edge edge-1"][1]
    for subject in ("model", "answer"):
        passed, text = found[subject]
        assert not passed
        assert "→" in text


async def test_a_stopped_edge_is_offline(address, at):
    """The finding has the reason in its last status, and the command that starts it."""
    async with reporting(address, SERVED):
        pass
    found = findings((await gleaner("doctor", "--timeout", "3", *at)).out)
    passed, text = found["edge edge-1"]
    assert not passed
    assert "offline" in text
    assert "it was stopped" in text
    assert "start it with 'gleaner edge --node edge-1'" in text


async def test_photos_do_not_pass_a_bridge(address, at):
    """At the cloud's broker of a site with bridges the edge is seen and takes no photos, without fault."""
    async with reporting(address, SERVED):
        done = await gleaner("doctor", "--all", *at)
    found = findings(done.out)
    assert done.code == 0, done.out
    assert found["answer"] == (True, "not asked: the edge takes photos at a broker of its own")


async def test_a_degraded_edge_is_reported_with_its_reason(answering, address, at):
    """The findings of a degraded edge and of a model that is not served have the reasons of the edge."""
    failed = ServedModel(name="pets", state="failed", reason="no such file")
    async with reporting(address, failed, "model server: expected an answer, got none"):
        done = await gleaner("doctor", *at)
    found = findings(done.out)
    assert done.code == 1
    assert "degraded" in found["edge edge-1"][1]
    assert "expected an answer, got none" in found["edge edge-1"][1]
    assert "pets is failed: no such file" in found["model"][1]
    assert "'gleaner modelserver'" in found["model"][1]
    assert found["answer"][0]


async def test_a_stale_status_is_a_failure(edge, at):
    """A retained status may be left from an edge whose will was lost."""
    status = Status(
        node=NODE, name="edge", state="online", at_ms=1, since_ms=1, software="1", run_id="1", model=SERVED
    )
    await edge.bus.publish_bytes(STATUS.name(node=NODE, name="edge"), encode(STATUS, status), retain=True)
    found = findings((await gleaner("doctor", "--timeout", "3", *at)).out)
    assert not found["edge edge-1"][0]


async def test_messages_dropped_by_the_broker_are_a_failure(at):
    """The check reads the counter of mosquitto, and its advice has the setting that prevents drops."""
    options = Namespace(
        all=False, timeout=1.0, config=None, broker=None, username=None, ca=None, cert=None, key=None
    )
    checks = Checks(options, NODE)
    checks._sys_dropped.put_nowait(RawMessage("$SYS/broker/publish/messages/dropped", b"3", retained=True))
    finding = checks.dropped()
    assert (finding.passed, finding.found) == (False, "3 messages since the broker started")
    assert "max_queued_messages 1000000" in finding.advice


async def test_all_checks_every_component(answering, address, at):
    """`--all` checks each node that reports, and the status of each device and cloud component."""
    camera = Bus(address, "camera", presence=Presence(NODE, "pi-9"))
    async with reporting(address, SERVED), connected(camera, address):
        await eventually(lambda: any(one.name == "pi-9" for one in answering.statuses))
        done = await gleaner("doctor", "--all", *at)
        assert done.code == 0, done.out
        assert findings(done.out)[f"pi-9 of {NODE}"][0]
    done = await gleaner("doctor", "--all", "--timeout", "3", *at)
    passed, text = findings(done.out)[f"pi-9 of {NODE}"]
    assert (done.code, passed) == (1, False)
    assert f"gleaner cloud retire {NODE}.pi-9" in text


@pytest.mark.parametrize(
    ("ahead_ms", "counters", "said"),
    [
        (900_000, {}, "ahead of this machine's"),
        (0, {"bus.flapping": 3, "bus.settled": 1}, "lost its connection again and again (2 times)"),
    ],
)
async def test_a_wrong_clock_and_a_twin_are_failures(edge, at, ahead_ms, counters, said):
    """A clock that is ahead makes photos expire; two of one name take the connection from each other."""
    status = Status(
        node=NODE,
        name="edge",
        state="online",
        at_ms=now_ms() + ahead_ms,
        since_ms=1,
        software="1",
        run_id="1",
        model=SERVED,
        counters=counters,
    )
    await edge.bus.publish_bytes(STATUS.name(node=NODE, name="edge"), encode(STATUS, status), retain=True)
    found = findings((await gleaner("doctor", "--timeout", "3", *at)).out)
    passed, text = found["edge edge-1"]
    assert not passed
    assert said in text


async def test_services_with_different_datasets_are_a_failure(answering, address, at):
    """A label that one stores is not trained on by the other; `--all` names who uses which."""
    at_places = {"collector": "/data/a.lance", "trainer": "/data/b.lance", "console": "/data/b.lance"}
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reporting(address, SERVED))
        for name, place in at_places.items():
            bus = Bus(address, name, presence=Presence("cloud", name, dataset=place))
            await stack.enter_async_context(connected(bus, address))
        passed, text = findings((await gleaner("doctor", "--all", *at)).out)["dataset"]
    assert not passed
    assert "collector: /data/a.lance; console, trainer: /data/b.lance" in text
    assert "the same --dataset" in text


def test_a_twin_that_is_gone_is_no_failure_any_more():
    """A counter never decreases: what counts is whether the component has been connected for long since."""
    status = Status(
        node=NODE,
        name="pi-1",
        state="online",
        at_ms=now_ms(),
        since_ms=1,
        software="1",
        run_id="1",
        counters={"bus.flapping": 2, "bus.settled": 2},
    )
    assert component_finding(status).passed


async def test_the_configuration_of_a_service_is_enough(answering, address, tmp_path):
    """The file of this machine's own service names broker, node and folders; its disk is checked too."""
    path = tmp_path / "device.toml"
    path.write_text(f"state_dir = '{tmp_path}'\n[broker]\nport = {address.port}\n")
    async with reporting(address, SERVED):
        done = await gleaner("doctor", "--config", path)
    assert done.code == 0, done.out
    assert "GB free for state_dir" in findings(done.out)["disk"][1]


def test_a_folder_that_cannot_be_looked_at_is_a_failure(tmp_path):
    """A service's folders are private: one that may not be searched is reported; other checks follow."""
    settings = DeviceConfig(state_dir=str(tmp_path / ("too-long" * 40)))  # refused to root as well
    (checked,) = machine_findings(Recognised("device", settings), datetime.now(UTC))
    assert not checked.passed
    assert "cannot look at state_dir" in checked.found
    assert "too long" in checked.found


async def test_a_broker_that_hides_its_own_topics_is_checked(broker):
    """It may refuse `$SYS`, as all but mosquitto's kin do: the checks continue."""
    async with refusing(broker.port, b"$SYS") as port:
        done = await gleaner("doctor", "--timeout", "3", "--broker", f"127.0.0.1:{port}")
    found = findings(done.out)
    assert done.err == ""
    assert [found[subject][0] for subject in ("broker", "probe", "dropped")] == [True] * 3


@pytest.mark.parametrize(("days", "passed"), [(10, False), (300, True)])
def test_a_certificate_that_expires_soon_is_a_failure(tmp_path, days, passed):
    """Both certificates of the configuration are checked; the advice renews them."""
    path = tmp_path / "ca.pem"
    path.write_bytes(certificates.authority_certificate(certificates.new_key(), "a CA", days=days))
    found = Recognised("client", ClientConfig(broker=Broker(tls=Tls(ca=str(path), certificate=str(path)))))
    checked = list(machine_findings(found, datetime.now(UTC)))
    assert [(one.subject, one.passed) for one in checked] == [("CA", passed), ("certificate", passed)]
    assert all("--renew" in one.advice for one in checked)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_broken_certificate_is_a_failure(tmp_path, content):
    """A file that is missing or no certificate does not end the doctor."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    found = Recognised("client", ClientConfig(broker=Broker(tls=Tls(ca=str(path)))))
    (checked,) = machine_findings(found, datetime.now(UTC))
    assert not checked.passed
    assert str(path) in checked.found
