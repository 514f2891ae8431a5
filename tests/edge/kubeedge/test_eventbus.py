"""The uplink over EventBus: JSON, rate limited, with retained messages on disk."""

import asyncio
import time

import msgspec

from bus.mqtt.client import Bus, transient_client_id
from edge.config import EventBusLimits
from edge.harvest.shrinking.image import SHORT_SIDE_PX
from edge.kubeedge.eventbus import RetainedMessage, max_sample_bytes, rate_limited
from edge.kubeedge.rate_limit import RateLimiter
from schemas.codec import MAX_PAYLOAD_BYTES, decode, encode, to_json
from schemas.messages import Policy, Sample
from schemas.policy_rules import HarvestRules
from schemas.topics import POLICY, SAMPLE
from tests.conftest import DEADLINE_S, eventually, running
from tests.nodes import sample as made_sample

NODE = "edge-1"
NAMES = {"node": NODE}


def sample(image: bytes = b"\xff\xd8\x00\xfe") -> Sample:
    return made_sample(image=image, node=NODE, embedding=bytes(range(256)))


async def test_a_sample_is_sent_as_ascii_json():
    """It decodes to the same sample; one that was stored as JSON is sent as well."""
    sent: list[bytes] = []

    async def publish(_: str, payload: bytes) -> None:
        sent.append(payload)

    send = rate_limited(publish, EventBusLimits(per_s=1000))
    await send(SAMPLE.name(node=NODE), encode(SAMPLE, sample()))
    await send(SAMPLE.name(node=NODE), to_json(sample()))
    assert [payload.isascii() for payload in sent] == [True, True]
    assert [decode(SAMPLE, payload, NAMES) for payload in sent] == [sample(), sample()]


async def test_the_largest_sample_fits_into_a_message():
    """The largest msgpack sample is within `max_bytes` as JSON."""
    limits = EventBusLimits(max_bytes=1_000_000)
    limit = max_sample_bytes(limits)
    envelope_bytes = len(encode(SAMPLE, sample(b"x" * 100_000))) - 100_000
    largest = sample(b"x" * (limit - envelope_bytes))
    assert len(encode(SAMPLE, largest)) == limit
    assert len(to_json(largest)) <= limits.max_bytes * 1.001
    assert limit < MAX_PAYLOAD_BYTES
    assert limit > SHORT_SIDE_PX * SHORT_SIDE_PX  # an ordinary sample is much smaller


async def test_concurrent_callers_are_spaced_evenly():
    """No caller continues before its slot."""
    limiter = RateLimiter(50)
    began = time.monotonic()
    continued = []

    async def go() -> None:
        await limiter.wait()
        continued.append(time.monotonic() - began)

    await asyncio.gather(*(go() for _ in range(6)))
    assert all(at >= number * 0.02 - 0.001 for number, at in enumerate(continued))


async def test_the_last_policy_survives_a_restart_without_retained_messages(address, tmp_path):
    """An edge on EventBus starts with the last valid policy that it received."""
    policy = Policy(node=NODE, harvest=HarvestRules(auto_confidence=0.5))
    at_cloud = Bus(address, transient_client_id("cloud"))
    first = Bus(address, transient_client_id("edge"))
    retained = RetainedMessage(first, POLICY, NODE, tmp_path)
    storing = asyncio.create_task(retained.run())
    async with running(first, at_cloud):
        topic = POLICY.name(node=NODE)
        await at_cloud.publish_bytes(topic, to_json(policy))
        await at_cloud.publish_bytes(topic, b'{"v":1,"node":"edge-2"}')
        await at_cloud.publish_bytes(topic, b"\xef\xbf\xbd")
        await eventually((tmp_path / "last-policy").exists)
        await eventually(retained._received.empty)
    storing.cancel()
    second = Bus(address, transient_client_id("edge"))
    policies = second.subscribe(POLICY, node=NODE)
    storing = asyncio.create_task(RetainedMessage(second, POLICY, NODE, tmp_path).run())
    async with asyncio.timeout(DEADLINE_S):
        delivery = await anext(policies)
    storing.cancel()
    delivery.ack()
    assert delivery.message() == policy
    assert msgspec.json.decode((tmp_path / "last-policy").read_bytes(), type=Policy) == policy


async def test_a_cleared_policy_is_forgotten(address, tmp_path):
    """An empty message clears the file too, as it clears a retained message at a broker."""
    at_cloud, first = Bus(address, transient_client_id("cloud")), Bus(address, transient_client_id("edge"))
    storing = asyncio.create_task(RetainedMessage(first, POLICY, NODE, tmp_path).run())
    async with running(first, at_cloud):
        await at_cloud.publish(POLICY, Policy(node=NODE), node=NODE)
        await eventually((tmp_path / "last-policy").exists)
        await at_cloud.publish_bytes(POLICY.name(node=NODE), b"")
        await eventually(lambda: not (tmp_path / "last-policy").exists())
    storing.cancel()


async def test_a_stored_message_that_cannot_be_read_ends_nothing(broker, address, tmp_path):
    """The edge works without it until the gateway sends it again."""
    (tmp_path / "last-policy").mkdir()
    bus = Bus(address, transient_client_id("edge"))
    retained = RetainedMessage(bus, POLICY, NODE, tmp_path)
    policies = bus.subscribe(POLICY, node=NODE)
    storing = asyncio.create_task(retained.run())
    async with running(bus):
        await bus.publish(POLICY, Policy(node=NODE), node=NODE)
        assert (await policies.queue.get()).message() == Policy(node=NODE)
        assert not storing.done()
    storing.cancel()
    await asyncio.gather(storing, return_exceptions=True)
