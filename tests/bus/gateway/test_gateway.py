import asyncio
import contextlib
import socket

import aiohttp
import pytest
from structlog.testing import capture_logs

from bus.broker.process import free_port, is_listening
from bus.config import Broker
from bus.gateway import service
from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.router_client import Router
from bus.gateway.rules.rule_probe import new_probe
from bus.gateway.uplink import Uplink, UplinkError
from bus.mqtt.client import Bus, transient_client_id
from schemas.codec import to_json, to_msgpack
from schemas.events import EventName
from schemas.messages import Command, Feedback, Policy, Receipt, Release, Sample, Status
from schemas.topics import COMMAND, EVENT, FEEDBACK, POLICY, RECEIPT, RELEASE, SAMPLE, STATUS
from tests.conftest import DEADLINE_S, eventually, jpeg, running
from tests.nodes import sample as made_sample
from tests.router import NODE, gateway_running

SAMPLE_ID = "0" * 31 + "1"


def config(cloud, listen, router, **changes) -> GatewayConfig:
    facts = {
        "broker": Broker(port=cloud.port),
        "listen": listen,
        "router": router.url,
        "nodes": (NODE,),
        "retry_cap_s": 0.2,
    }
    return GatewayConfig(**(facts | changes))


def sample(photo_id: str = SAMPLE_ID, image: bytes = b"\xff\xd8\x00\xfe") -> Sample:
    return made_sample(photo_id, image, node=NODE)


def status(run_id: str = "run-1", state: str = "online") -> Status:
    return Status(node=NODE, name="edge", state=state, at_ms=1, since_ms=1, software="1", run_id=run_id)


def release(version: int) -> Release:
    return Release(
        node=NODE,
        model="pets",
        version=version,
        url="file:///x",
        sha256="0" * 64,
        size_bytes=1,
        classes=["a", "b"],
        released_at_ms=1,
    )


def receipt(number: int) -> Receipt:
    return Receipt(photo_id=f"{number:032x}", node=NODE, status="stored", received_at_ms=1)


class Ends:
    """A client of the edge's broker and one of the cloud's; both receive all messages undecoded."""

    def __init__(self, edge, cloud) -> None:
        self.edge = Bus(Broker(port=edge.port), transient_client_id("at-edge"))
        self.cloud = Bus(Broker(port=cloud.port), transient_client_id("at-cloud"))
        self.at_edge = self.edge.subscribe_raw("gleaner/#")
        self.at_cloud = self.cloud.subscribe_raw("gleaner/#")

    async def next_on(self, queue: asyncio.Queue, topic: str):
        """Wait for the next message on a topic; skip others."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = await queue.get()
                if message.topic == topic:
                    return message

    def running(self):
        return running(self.edge, self.cloud)


@pytest.fixture
def ends(edge, cloud) -> Ends:
    return Ends(edge, cloud)


async def post(listen: str, path: str, body: bytes) -> int:
    url = f"http://{listen}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        assert await answer.text(), "an answer without a body costs cloudcore a file descriptor"
        return answer.status


def topics_in(queue: asyncio.Queue) -> list[str]:
    """Empty a queue and return the topics of its messages."""
    return [queue.get_nowait().topic for _ in range(queue.qsize())]


# up


async def test_messages_of_an_edge_arrive_unchanged_on_the_same_topic(ends, cloud, listen, router):
    """A message keeps its topic and bytes, also unknown fields; a status is retained."""
    newer = to_json(sample())[:-1] + b',"later_field":"\xc3\xa9"}'
    feedback = Feedback(photo_id=SAMPLE_ID, node=NODE, device="pi-1", label="dog")
    sent = {
        SAMPLE.name(node=NODE): newer,
        STATUS.name(node=NODE, name="edge"): to_json(status()),
        FEEDBACK.name(node=NODE, device="pi-1"): to_json(feedback),
    }
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        for topic, payload in sent.items():
            await ends.edge.publish_bytes(topic, payload)
            assert (await ends.next_on(ends.at_cloud, topic)).payload == payload
    late = Bus(Broker(port=cloud.port), transient_client_id("late"))
    statuses = late.subscribe_raw(STATUS.filter)
    async with running(late):
        kept = [await statuses.get(), await statuses.get()]  # of the edge and of the gateway
    assert STATUS.name(node=NODE, name="edge") in [message.topic for message in kept if message.retained]


async def test_g3_names_of_devices_take_no_memory():
    """G3: labels under a thousand names are refused or forwarded, and the gateway remembers their node."""
    listen = f"127.0.0.1:{free_port()}"
    settings, bus = GatewayConfig(listen=listen, nodes=(NODE,)), Bus(Broker(), "gateway")
    uplink = Uplink(settings, bus, Downlink(settings, bus, Router("http://127.0.0.1:1")))
    serving = asyncio.create_task(uplink.run())
    try:
        await eventually(lambda: is_listening(int(listen.rpartition(":")[2])))
        for number in range(20):
            assert await post(listen, f"/up/{NODE}/feedback/pi-{number}", b"{}") == 400
        assert not uplink.is_silent(NODE)
        assert len(uplink._carried_at) == 1
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_request_that_goes_on_does_not_hold_up_the_end():
    """A gateway that is stopped ends well before the deadline, even if its clients do not."""
    port = free_port()
    settings, bus = GatewayConfig(listen=f"127.0.0.1:{port}", nodes=(NODE,)), Bus(Broker(), "gateway")
    uplink = Uplink(settings, bus, Downlink(settings, bus, Router("http://127.0.0.1:1")))
    serving = asyncio.create_task(uplink.run())
    await eventually(lambda: is_listening(port))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /up/{NODE}/sample HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n{{".encode())
    await eventually(lambda: uplink._receiving == 1)
    serving.cancel()
    async with asyncio.timeout(30):  # aiohttp alone would wait 60 s for the client
        await asyncio.gather(serving, return_exceptions=True)
    writer.close()


async def test_g4_invalid_requests_are_refused(ends, cloud, listen, router):
    """G4: wrong paths, nodes, bodies and sizes get 404, 400 or 413, and nothing is published."""
    broken = to_msgpack(sample()).decode(errors="replace").encode()  # as EventBus does
    cases = [
        ("/up/edge-1/photo", b"{}", 404),
        ("/up/edge-2/sample", to_json(sample()), 404),
        ("/up/edge-1/feedback", b"{}", 404),
        ("/up/edge-1/sample/pi-1", b"{}", 404),
        ("/elsewhere", b"{}", 404),
        ("/up/edge-1/sample", b"", 400),
        ("/up/edge-1/sample", broken, 400),
        ("/up/edge-1/status", to_json(status()).replace(b"edge-1", b"edge-2"), 400),
        ("/up/edge-1/sample", to_json(sample(image=bytes(30_000))), 413),
    ]
    async with ends.running(), gateway_running(config(cloud, listen, router, max_body_bytes=20_000)):
        for path, body, expected in cases:
            assert await post(listen, path, body) == expected, path
        assert await post(listen, "/up/edge-1/status", to_json(status())) == 200
        await ends.next_on(ends.at_cloud, STATUS.name(node=NODE, name="edge"))
        assert set(topics_in(ends.at_cloud)) <= {STATUS.name(node="cloud", name="gateway")}


async def test_a_sample_that_can_never_be_stored_gets_its_receipt(ends, cloud, listen, router):
    """G4: a sample of an unknown version gets the receipt `refused`, so that the edge stops sending it."""
    unknown = to_json(sample()).replace(b'"v":1', b'"v":2')
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.edge.publish_bytes(SAMPLE.name(node=NODE), unknown)
        answer = await ends.next_on(ends.at_edge, RECEIPT.name(node=NODE))
    assert b'"status":"refused"' in answer.payload
    assert SAMPLE_ID.encode() in answer.payload


async def test_g3_a_full_queue_affects_only_its_node(ends, cloud, listen, router):
    """G3: while the broker is down, messages above a node's limit get 503; another node's are accepted."""
    payload = to_json(sample(image=jpeg(1)))
    bounds = {"queue_bytes": 20_000, "nodes": (NODE, "edge-2")}
    async with ends.running(), gateway_running(config(cloud, listen, router, **bounds)):
        await ends.next_on(ends.at_cloud, STATUS.name(node="cloud", name="gateway"))
        cloud.kill()
        answers = []
        while 503 not in answers:
            answers.append(await post(listen, "/up/edge-1/sample", payload))
            assert len(answers) < 50
        other = to_json(status()).replace(b"edge-1", b"edge-2")
        assert await post(listen, "/up/edge-2/status", other) == 200
        cloud.start()
        topic = STATUS.name(node="edge-2", name="edge")
        assert (await ends.next_on(ends.at_cloud, topic)).payload == other
    assert 200 in answers


async def test_g4_incomplete_requests_do_not_block_others(ends, cloud, listen, router):
    """G4: clients that send half a request, or disconnect, do not keep others from being answered."""
    host, _, port = listen.rpartition(":")
    head = b"POST /up/edge-1/sample HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        halves = [socket.create_connection((host, int(port))) for _ in range(8)]
        try:
            for half in halves:
                half.sendall(head)
            halves.pop().close()
            assert await post(listen, "/up/edge-1/sample", to_json(sample())) == 200
        finally:
            for half in halves:
                half.close()


async def test_an_address_in_use_is_an_error_at_the_start(cloud, listen, router):
    """A gateway on a port that is in use raises UplinkError."""
    with pytest.raises(ExceptionGroup) as raised:
        await service.run(config(cloud, f"127.0.0.1:{cloud.port}", router))
    assert raised.group_contains(UplinkError, match="cannot listen on")


async def test_a_probe_is_reported_and_not_forwarded(ends, cloud, listen, router):
    """A probe becomes an Event of the gateway, and is not published on its topic."""
    probe = new_probe()
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.edge.publish_bytes(SAMPLE.name(node=NODE), probe.payload)
        event = await ends.next_on(ends.at_cloud, EVENT.name(node="cloud", name="gateway"))
        assert ends.at_cloud.empty()
    assert EventName.RULE_PROBED.encode() in event.payload
    assert probe.number.encode() in event.payload


# down


async def test_messages_for_an_edge_arrive_as_json_on_the_same_topic(ends, cloud, listen, router):
    """Receipts, commands, policies and releases keep their topic; msgpack becomes JSON."""
    command = Command(node=NODE, device="pi-1", action="capture")
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.next_on(ends.at_edge, POLICY.name(node=NODE))
        await ends.cloud.publish(RELEASE, release(3), node=NODE)
        await ends.next_on(ends.at_edge, RELEASE.name(node=NODE))
        await ends.cloud.publish(COMMAND, command, node=NODE, device="pi-1")
        await ends.next_on(ends.at_edge, COMMAND.name(node=NODE, device="pi-1"))
        await ends.cloud.publish_bytes(RECEIPT.name(node=NODE), to_msgpack(receipt(1)))
        got = await ends.next_on(ends.at_edge, RECEIPT.name(node=NODE))
    assert got.payload == to_json(receipt(1))


async def test_an_offline_node_gets_only_the_newest_release(ends, cloud, listen, router):
    """Of several releases for an offline node only the newest is sent when it is back."""
    router.away.add(NODE)
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        await eventually(lambda: router.counts["down away"] >= 2)
        await ends.cloud.publish(RELEASE, release(2), node=NODE)
        tries = router.counts["down away"]
        await eventually(lambda: router.counts["down away"] >= tries + 3)
        router.away.clear()
        got = await ends.next_on(ends.at_edge, RELEASE.name(node=NODE))
    assert got.payload == to_json(release(2))


async def test_an_edge_that_starts_gets_policy_and_release_again(ends, cloud, listen, router):
    """After each start an edge gets policy and release again, because EventBus retains nothing."""
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        for topic in (POLICY, RELEASE):
            await ends.next_on(ends.at_edge, topic.name(node=NODE))
        for run_id in ("run-1", "run-2"):
            await ends.edge.publish(STATUS, status(run_id), node=NODE, name="edge")
            topics = {
                (await ends.next_on(ends.at_edge, topic.name(node=NODE))).topic for topic in (POLICY, RELEASE)
            }
            assert len(topics) == 2


async def test_policy_and_release_are_repeated(ends, cloud, listen, router):
    """Policy and release are sent again at intervals: the Router may report success for a lost message."""
    async with ends.running(), gateway_running(config(cloud, listen, router, repeat_s=0.3)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        for _ in range(3):
            for topic in (POLICY, RELEASE):
                await ends.next_on(ends.at_edge, topic.name(node=NODE))


async def test_a_gateway_that_starts_forwards_retained_messages(ends, cloud, listen, router):
    """A retained policy reaches the edge when the gateway starts; a deleted release does not."""
    async with ends.running():
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        await ends.cloud.publish_bytes(RELEASE.name(node=NODE), b"", retain=True)
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        async with gateway_running(config(cloud, listen, router)):
            await ends.next_on(ends.at_edge, POLICY.name(node=NODE))
            await ends.edge.publish(STATUS, status(), node=NODE, name="edge")
            await ends.next_on(ends.at_edge, POLICY.name(node=NODE))
            assert RELEASE.name(node=NODE) not in topics_in(ends.at_edge)


async def test_g3_receipts_and_commands_for_an_offline_node_expire(ends, cloud, listen, router):
    """G3: receipts and commands for an offline node are dropped when they expire, and counted."""
    router.away.add(NODE)
    brief = config(cloud, listen, router, receipt_expires_s=0.2, command_expires_s=0.2)
    bus = Bus(brief.broker, transient_client_id("gateway"))
    async with ends.running(), Router(router.url) as client:
        forwarding = asyncio.create_task((downlink := Downlink(brief, bus, client)).run())
        async with running(bus):
            for number in range(20):
                await ends.cloud.publish(RECEIPT, receipt(number), node=NODE)
            capture = Command(node=NODE, device="pi-1", action="capture")
            await ends.cloud.publish(COMMAND, capture, node=NODE, device="pi-1")
            await eventually(
                lambda: (
                    (bus.counters["down.receipt.expired"], bus.counters["down.command.expired"]) == (20, 1)
                )
            )
            router.away.clear()
            downlink.node_returned(NODE)
            async with asyncio.timeout(DEADLINE_S):
                while ends.at_edge.empty():  # on a busy machine even this one may expire
                    await ends.cloud.publish(RECEIPT, receipt(99), node=NODE)
            received = [ends.at_edge.get_nowait().payload for _ in range(ends.at_edge.qsize())]
            assert set(received) == {to_json(receipt(99))}
        forwarding.cancel()


async def test_messages_for_other_gateways_nodes_are_skipped(ends, cloud, listen, router):
    """A gateway forwards only valid messages for its own nodes."""
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish_bytes(POLICY.name(node="edge-9"), b"nonsense")
        await ends.cloud.publish_bytes(POLICY.name(node=NODE), b"nonsense")
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        assert (await ends.next_on(ends.at_edge, POLICY.name(node=NODE))).payload == to_json(
            Policy(node=NODE)
        )
        assert topics_in(ends.at_edge) == []


async def test_g3_heads_that_never_end_do_not_hold_up_the_gateway(cloud, listen, router):
    """G3: two hundred clients that never end their head are bounded; a message is accepted at once."""
    host, port = listen.rsplit(":", 1)
    async with gateway_running(config(cloud, listen, router)):
        idle = []
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(200):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"POST /up/edge-1/sample HTTP/1.1\r\nX: ")
                idle.append((reader, writer))
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"http://{listen}/up/{NODE}/sample", data=to_json(sample())) as answer,
            ):
                assert answer.status == 200
            with contextlib.suppress(ConnectionError):
                assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_g4_a_body_that_cannot_be_unpacked_is_a_bad_request(cloud, listen, router, encoding):
    """G4: an invalid compressed body is answered with 400 and a sentence, not with a traceback."""
    async with (
        gateway_running(config(cloud, listen, router)),
        aiohttp.ClientSession() as session,
        session.post(
            f"http://{listen}/up/{NODE}/sample",
            data=b"this is not compressed",
            headers={"Content-Encoding": encoding},
        ) as answer,
    ):
        assert answer.status == 400
        assert "Traceback" not in await answer.text()


async def test_g5_a_request_that_is_no_http_is_one_line_of_the_log(cloud, listen, router, caplog):
    """G5: otherwise any client of the port could fill the log with tracebacks."""
    requests = (
        b"GET / HTTP/1.1\r\nHost: [\0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
    )
    with capture_logs() as logs:
        async with gateway_running(config(cloud, listen, router)):
            for request in requests:
                reader, writer = await asyncio.open_connection(*listen.split(":"))
                writer.write(request)
                assert (await reader.read()).startswith(b"HTTP/1.0 400")
                writer.close()
    refused = [entry["reason"] for entry in logs if entry["event"] == "up.refused"]
    assert len(refused) == 3
    assert all(reason and "\n" not in reason for reason in refused)
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]
