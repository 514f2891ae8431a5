import asyncio
import time

import msgspec

from bus.mqtt.client import Bus, transient_client_id
from edge.config import EventBusLimits
from edge.harvest.image import SHORT_SIDE_PX
from edge.kubeedge.eventbus import RetainedMessage, max_sample_bytes, rate_limited
from edge.kubeedge.rate_limit import RateLimiter
from schemas.codec import MAX_PAYLOAD_BYTES, decode, encode, to_json
from schemas.messages import HarvestRules, Policy, Sample
from schemas.topics import POLICY, SAMPLE
from tests.conftest import eventually, running

NODE = "edge-1"
NAMES = {"node": NODE}


def sample(image: bytes = b"\xff\xd8\x00\xfe") -> Sample:
    return Sample(
        photo_id="0" * 32,
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
        embedding=bytes(range(256)),
        harvested_at_ms=1,
    )


async def test_a_sample_crosses_as_text_and_is_the_same_sample():
    """KubeEdge makes rubbish of bytes: a sample goes out as ASCII, and one kept from a bridge's time too."""
    sent: list[bytes] = []

    async def publish(_: str, payload: bytes) -> None:
        sent.append(payload)

    send = rate_limited(publish, EventBusLimits(per_s=1000))
    await send(SAMPLE.name(node=NODE), encode(SAMPLE, sample()))
    await send(SAMPLE.name(node=NODE), to_json(sample()))
    assert [payload.isascii() for payload in sent] == [True, True]
    assert [decode(SAMPLE, payload, NAMES) for payload in sent] == [sample(), sample()]


async def test_the_largest_sample_stays_below_the_largest_message():
    """What is admitted as msgpack is no larger than allowed once it is JSON."""
    limits = EventBusLimits(max_bytes=1_000_000)
    most = max_sample_bytes(limits)
    around_bytes = len(encode(SAMPLE, sample(b"x" * 100_000))) - 100_000
    largest = sample(b"x" * (most - around_bytes))
    assert len(encode(SAMPLE, largest)) == most
    assert len(to_json(largest)) <= limits.max_bytes * 1.001
    assert most < MAX_PAYLOAD_BYTES
    assert most > SHORT_SIDE_PX * SHORT_SIDE_PX  # an ordinary sample is far below


async def test_the_pace_is_even_whoever_asks():
    """Callers that come together leave one after the other, never sooner than their turn."""
    pace = RateLimiter(50)
    began = time.monotonic()
    left = []

    async def go() -> None:
        await pace.turn()
        left.append(time.monotonic() - began)

    await asyncio.gather(*(go() for _ in range(6)))
    assert all(at >= number * 0.02 - 0.001 for number, at in enumerate(left))


async def test_the_last_policy_outlives_a_restart_without_a_retaining_broker(address, tmp_path):
    """On a bus that retains nothing, an edge starts with the policy that it followed last."""
    policy = Policy(node=NODE, harvest=HarvestRules(auto_confidence=0.5))
    at_cloud = Bus(address, transient_client_id("cloud"))
    first = Bus(address, transient_client_id("edge"))
    keeping = asyncio.create_task(RetainedMessage(first, POLICY, NODE, tmp_path).run())
    async with running(first, at_cloud):
        topic = POLICY.name(node=NODE)
        await at_cloud.publish_bytes(topic, to_json(policy))
        await at_cloud.publish_bytes(topic, b'{"v":1,"node":"edge-2"}')
        await at_cloud.publish_bytes(topic, b"\xef\xbf\xbd")
        await eventually((tmp_path / "last-policy").exists)
        await eventually(first._raw_queues[topic].empty)
    keeping.cancel()
    second = Bus(address, transient_client_id("edge"))
    policies = second.subscribe(POLICY, node=NODE)
    keeping = asyncio.create_task(RetainedMessage(second, POLICY, NODE, tmp_path).run())
    async with asyncio.timeout(10):
        delivery = await anext(policies)
    keeping.cancel()
    delivery.ack()
    assert delivery.message() == policy
    assert msgspec.json.decode((tmp_path / "last-policy").read_bytes(), type=Policy) == policy
