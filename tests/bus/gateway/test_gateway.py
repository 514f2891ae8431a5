import asyncio
import socket

import aiohttp
import pytest

from bus.config import Broker
from bus.gateway import service
from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.router_client import Router
from bus.gateway.rule_probe import EVENT_NAME, draw
from bus.gateway.uplink import UplinkError
from bus.mqtt.client import Bus, transient_client_id
from schemas.codec import to_json, to_msgpack
from schemas.messages import Command, Feedback, Policy, Receipt, Release, Sample, Status
from schemas.topics import COMMAND, EVENT, FEEDBACK, POLICY, RECEIPT, RELEASE, SAMPLE, STATUS
from tests.conftest import eventually, jpeg, running
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
    return Sample(
        photo_id=photo_id,
        node=NODE,
        device="pi-1",
        image=image,
        width=1,
        height=1,
        dhash="0" * 16,
        lane="auto",
        label="cat",
        confidence=1.0,
        scores={"cat": 1.0},
        model="pets",
        model_version=1,
        harvested_at_ms=1,
    )


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
    """A client at the edge's broker and one at the cloud's, which see everything undecoded."""

    def __init__(self, edge, cloud) -> None:
        self.edge = Bus(Broker(port=edge.port), transient_client_id("at-edge"))
        self.cloud = Bus(Broker(port=cloud.port), transient_client_id("at-cloud"))
        self.at_edge = self.edge.subscribe_raw("gleaner/#")
        self.at_cloud = self.cloud.subscribe_raw("gleaner/#")

    async def seen(self, at: asyncio.Queue, topic: str):
        """Wait for the next message on a topic; others are passed over."""
        async with asyncio.timeout(20):
            while True:
                message = await at.get()
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


def everything(at: asyncio.Queue) -> list[str]:
    return [at.get_nowait().topic for _ in range(at.qsize())]


# up


async def test_what_an_edge_says_arrives_on_the_same_topic_unchanged(ends, cloud, listen, router):
    """A message keeps its topic and bytes, with fields that nobody knows yet; a status is retained."""
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
            assert (await ends.seen(ends.at_cloud, topic)).payload == payload
    late = Bus(Broker(port=cloud.port), transient_client_id("late"))
    statuses = late.subscribe_raw(STATUS.filter)
    async with running(late):
        kept = [await statuses.get(), await statuses.get()]  # the edge's and the gateway's own
    assert STATUS.name(node=NODE, name="edge") in [message.topic for message in kept if message.retained]


async def test_g4_what_is_no_message_is_refused_in_words(ends, cloud, listen, router):
    """G4: wrong paths, nodes, bodies and sizes get an answer that says so, and nothing is published."""
    broken = to_msgpack(sample()).decode(errors="replace").encode()  # what the EventBus makes of bytes
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
        await ends.seen(ends.at_cloud, STATUS.name(node=NODE, name="edge"))
        assert set(everything(ends.at_cloud)) <= {STATUS.name(node="cloud", name="gateway")}


async def test_a_sample_that_can_never_be_stored_gets_its_receipt(ends, cloud, listen, router):
    """G4: an edge does not send for ever what this version does not understand."""
    unknown = to_json(sample()).replace(b'"v":1', b'"v":2')
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.edge.publish_bytes(SAMPLE.name(node=NODE), unknown)
        answer = await ends.seen(ends.at_edge, RECEIPT.name(node=NODE))
    assert b'"status":"refused"' in answer.payload
    assert SAMPLE_ID.encode() in answer.payload


async def test_g3_a_full_queue_is_refused_and_another_nodes_is_not(ends, cloud, listen, router):
    """G3: while the broker is away a node's messages wait up to a bound, then get 503; others have room."""
    payload = to_json(sample(image=jpeg(1)))
    bounds = {"queue_bytes": 20_000, "nodes": (NODE, "edge-2")}
    async with ends.running(), gateway_running(config(cloud, listen, router, **bounds)):
        await ends.seen(ends.at_cloud, STATUS.name(node="cloud", name="gateway"))
        cloud.kill()
        told = []
        while 503 not in told:
            told.append(await post(listen, "/up/edge-1/sample", payload))
            assert len(told) < 50
        other = to_json(status()).replace(b"edge-1", b"edge-2")
        assert await post(listen, "/up/edge-2/status", other) == 200
        cloud.start()
        topic = STATUS.name(node="edge-2", name="edge")
        assert (await ends.seen(ends.at_cloud, topic)).payload == other
    assert 200 in told


async def test_g4_a_body_that_never_ends_holds_nobody_up(ends, cloud, listen, router):
    """G4: who sends half a message, or hangs up in the middle, does not keep others from being taken."""
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


async def test_a_taken_address_is_said_in_words(cloud, listen, router):
    """A gateway on a port in use is an error at the start."""
    with pytest.raises(ExceptionGroup) as raised:
        await service.run(config(cloud, f"127.0.0.1:{cloud.port}", router))
    assert raised.group_contains(UplinkError, match="an address to listen on")


async def test_a_probe_is_reported_and_goes_no_further(ends, cloud, listen, router):
    """A probe on a topic that crosses becomes an Event of the gateway, and no message on that topic."""
    probe = draw()
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.edge.publish_bytes(SAMPLE.name(node=NODE), probe.payload)
        told = await ends.seen(ends.at_cloud, EVENT.name(node="cloud", name="gateway"))
        assert ends.at_cloud.empty()
    assert EVENT_NAME.encode() in told.payload
    assert probe.number.encode() in told.payload


# down


async def test_what_is_for_an_edge_arrives_on_the_same_topic_as_text(ends, cloud, listen, router):
    """Receipts, commands, policy and release keep their topic, and become JSON if they were not."""
    command = Command(node=NODE, device="pi-1", action="capture")
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.seen(ends.at_edge, POLICY.name(node=NODE))
        await ends.cloud.publish(RELEASE, release(3), node=NODE)
        await ends.seen(ends.at_edge, RELEASE.name(node=NODE))
        await ends.cloud.publish(COMMAND, command, node=NODE, device="pi-1")
        await ends.seen(ends.at_edge, COMMAND.name(node=NODE, device="pi-1"))
        await ends.cloud.publish_bytes(RECEIPT.name(node=NODE), to_msgpack(receipt(1)))
        got = await ends.seen(ends.at_edge, RECEIPT.name(node=NODE))
    assert got.payload == to_json(receipt(1))


async def test_a_release_waits_for_a_node_that_is_away_and_only_the_newest_counts(
    ends, cloud, listen, router
):
    """What was released while a node was offline reaches it when it is back, without the ones before."""
    router.away.add(NODE)
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        await eventually(lambda: router.counts["down away"] >= 2)
        await ends.cloud.publish(RELEASE, release(2), node=NODE)
        tries = router.counts["down away"]
        await eventually(lambda: router.counts["down away"] >= tries + 3)
        router.away.clear()
        got = await ends.seen(ends.at_edge, RELEASE.name(node=NODE))
    assert got.payload == to_json(release(2))


async def test_an_edge_that_starts_is_told_policy_and_release_again(ends, cloud, listen, router):
    """The EventBus retains nothing: an edge that started, or was silent, gets what lasts without asking."""
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        for topic in (POLICY, RELEASE):
            await ends.seen(ends.at_edge, topic.name(node=NODE))
        for run_id in ("run-1", "run-2"):
            await ends.edge.publish(STATUS, status(run_id), node=NODE, name="edge")
            told = {
                (await ends.seen(ends.at_edge, topic.name(node=NODE))).topic for topic in (POLICY, RELEASE)
            }
            assert len(told) == 2


async def test_policy_and_release_are_said_again_and_again(ends, cloud, listen, router):
    """The Router's "delivered" is no proof: what lasts goes down once more although nobody asks."""
    async with ends.running(), gateway_running(config(cloud, listen, router, repeat_s=0.3)):
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        for _ in range(3):
            for topic in (POLICY, RELEASE):
                await ends.seen(ends.at_edge, topic.name(node=NODE))


async def test_a_gateway_that_starts_takes_up_what_the_broker_retained(ends, cloud, listen, router):
    """A policy published before the gateway was there reaches the edge; one that was taken back does not."""
    async with ends.running():
        await ends.cloud.publish(RELEASE, release(1), node=NODE)
        await ends.cloud.publish_bytes(RELEASE.name(node=NODE), b"", retain=True)
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        async with gateway_running(config(cloud, listen, router)):
            await ends.seen(ends.at_edge, POLICY.name(node=NODE))
            await ends.edge.publish(STATUS, status(), node=NODE, name="edge")
            await ends.seen(ends.at_edge, POLICY.name(node=NODE))
            assert RELEASE.name(node=NODE) not in everything(ends.at_edge)


async def test_g3_receipts_and_commands_for_a_node_that_is_away_expire(ends, cloud, listen, router):
    """G3: nothing piles up for a node that is gone; what it still needs, it asks for again."""
    router.away.add(NODE)
    brief = config(cloud, listen, router, receipt_expires_s=0.2, command_expires_s=0.2)
    bus = Bus(brief.broker, transient_client_id("gateway"))
    async with ends.running(), Router(router.url, timeout_s=10) as client:
        passing = asyncio.create_task((downlink := Downlink(brief, bus, client)).run())
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
            downlink.returned(NODE)
            await ends.cloud.publish(RECEIPT, receipt(99), node=NODE)
            got = await ends.seen(ends.at_edge, RECEIPT.name(node=NODE))
            assert (got.payload, everything(ends.at_edge)) == (to_json(receipt(99)), [])
        passing.cancel()


async def test_another_gateways_node_is_left_alone(ends, cloud, listen, router):
    """A gateway passes on what is for its own nodes, and counts nothing else as wrong."""
    async with ends.running(), gateway_running(config(cloud, listen, router)):
        await ends.cloud.publish_bytes(POLICY.name(node="edge-9"), b"nonsense")
        await ends.cloud.publish_bytes(POLICY.name(node=NODE), b"nonsense")
        await ends.cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        assert (await ends.seen(ends.at_edge, POLICY.name(node=NODE))).payload == to_json(Policy(node=NODE))
        assert everything(ends.at_edge) == []
