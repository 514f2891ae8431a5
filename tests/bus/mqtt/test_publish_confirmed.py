import pytest

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.publish_confirmed import publish_confirmed
from schemas.messages import Policy
from schemas.topics import POLICY
from tests.conftest import running


async def test_what_came_back_was_let_through(address):
    """Publishing ends when the broker has handed the message back, whatever else was there before."""
    bus = Bus(address, transient_client_id("echo"))
    echoes = bus.subscribe(POLICY)
    async with running(bus):
        for number in range(2):
            policy = Policy(node="edge-1", issued_at_ms=number)
            await publish_confirmed(bus, echoes, POLICY, policy, node="edge-1")


async def test_another_message_is_no_proof(address, monkeypatch):
    """What does not come back was refused, for all one can know, and is an error that names the topic."""
    monkeypatch.setattr("bus.mqtt.publish_confirmed._ECHO_S", 0.5)
    bus = Bus(address, transient_client_id("echo"))
    elsewhere = bus.subscribe(POLICY, node="edge-2")
    async with running(bus):
        await bus.publish(POLICY, Policy(node="edge-2"), node="edge-2")
        with pytest.raises(BrokerConnectionError, match=r"policy/edge-1.*may this client write and read it"):
            await publish_confirmed(bus, elsewhere, POLICY, Policy(node="edge-1"), node="edge-1")
