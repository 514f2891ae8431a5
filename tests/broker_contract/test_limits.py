"""Message size, and Gleaner's own client."""

import pytest

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.topics import STATUS
from tests.conftest import eventually, running


def test_the_largest_message_arrives(peers, topic):
    """A payload of the largest size that the codec allows, whole."""
    receiver = peers("receiver", at=1)
    receiver.subscribe(topic)
    payload = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256)
    peers("sender").publish(topic, payload)
    assert receiver.take(1) == [payload]


def test_a_larger_message_hurts_only_its_sender(peers, topic):
    """Whether the broker refuses or delivers it: its subscriber stays connected and gets the next message."""
    receiver = peers("receiver", at=1)
    receiver.subscribe(topic)
    peers("sender").attempt(
        topic, bytes(2 * MAX_PAYLOAD_BYTES)
    )  # with MQTT 3.1.1 a PUBACK may mean a refusal
    peers("other").publish(topic, b"next")
    if (arrived := receiver.take(1)) == [bytes(2 * MAX_PAYLOAD_BYTES)]:
        arrived = receiver.take(1)
    assert arrived == [b"next"]


async def test_gleaners_client_works_and_leaves_its_status(nodes, topic):
    """It connects, gets its own Status back, and what it publishes last is `offline`, retained."""
    node, name = nodes[0], f"contract-{topic[-16:]}"
    if node.username is not None:
        pytest.skip("tried without a password only")
    watcher = Bus(Broker(host=nodes[-1].host, port=nodes[-1].port), f"watcher-{topic[-16:]}")
    statuses = watcher.subscribe(STATUS, name=name).queue
    client = Bus(Broker(host=node.host, port=node.port), name, presence=Presence("contract", name))
    async with running(watcher):
        async with running(client):
            pass
        await eventually(lambda: statuses.qsize() >= 2)
        states = [(await statuses.get()).message().state for _ in range(statuses.qsize())]
        while states[-1] != "offline":
            states.append((await statuses.get()).message().state)
        assert states[0] == "online"
        await watcher.publish_bytes(STATUS.name(node="contract", name=name), b"", retain=True)
