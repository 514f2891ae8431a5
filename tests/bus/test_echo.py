import pytest

from bus.echo import publish_seen
from bus.link import LinkError
from bus.mqtt import Bus, passing_id
from schemas.messages import Policy
from schemas.topics import POLICY
from tests.conftest import running


async def test_what_came_back_was_let_through(address):
    """Publishing ends when the broker has handed the message back, whatever else was there before."""
    bus = Bus(address, passing_id("echo"))
    echoes = bus.subscribe(POLICY)
    async with running(bus):
        for number in range(2):
            policy = Policy(node="edge-1", issued_at_ms=number)
            await publish_seen(bus, echoes, POLICY, policy, node="edge-1")


async def test_another_message_is_no_proof(address, monkeypatch):
    """What does not come back was refused, for all one can know, and is an error that names the topic."""
    monkeypatch.setattr("bus.echo._ECHO_S", 0.5)
    bus = Bus(address, passing_id("echo"))
    elsewhere = bus.subscribe(POLICY, node="edge-2")
    async with running(bus):
        await bus.publish(POLICY, Policy(node="edge-2"), node="edge-2")
        with pytest.raises(LinkError, match=r"policy/edge-1.*may this client write and read it"):
            await publish_seen(bus, elsewhere, POLICY, Policy(node="edge-1"), node="edge-1")
