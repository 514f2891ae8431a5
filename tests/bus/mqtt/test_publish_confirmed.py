import pytest

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection.connection import BrokerConnectionError
from bus.mqtt.publish_confirmed import publish_confirmed
from schemas.messages import Policy
from schemas.topics import POLICY
from tests.conftest import running


async def test_publishing_ends_when_the_broker_delivers_the_message(address):
    """`publish_confirmed` returns once its own message arrives; earlier messages do not matter."""
    bus = Bus(address, transient_client_id("publisher"))
    policies = bus.subscribe(POLICY)
    async with running(bus):
        for number in range(2):
            policy = Policy(node="edge-1", issued_at_ms=number)
            await publish_confirmed(bus, policies, POLICY, policy, node="edge-1")


async def test_a_message_that_is_not_delivered_is_an_error(address, monkeypatch):
    """If the message does not arrive, an error names its topic; another message does not count."""
    monkeypatch.setattr("bus.mqtt.publish_confirmed._CONFIRM_S", 0.5)
    bus = Bus(address, transient_client_id("publisher"))
    elsewhere = bus.subscribe(POLICY, node="edge-2")
    async with running(bus):
        await bus.publish(POLICY, Policy(node="edge-2"), node="edge-2")
        with pytest.raises(BrokerConnectionError, match=r"policy/edge-1.*may this client write and read it"):
            await publish_confirmed(bus, elsewhere, POLICY, Policy(node="edge-1"), node="edge-1")
