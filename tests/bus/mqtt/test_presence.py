import asyncio

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from schemas.codec import encode
from schemas.topics import CLOUD, STATUS
from tests.conftest import DEADLINE_S, running


def test_a_component_is_online_when_every_part_has_recovered():
    """A component stays degraded, with the remaining reasons, until the last degraded part recovers."""
    presence = Presence("edge-1", "edge")
    assert presence.degrade("predict", "the model server is away")
    assert presence.degrade("outbox", "the disk is full")
    assert not presence.degrade("outbox", "the disk is full")
    assert presence.recover("predict") is not None
    status = presence.status(Counters())
    assert (status.state, status.reason) == ("degraded", "the disk is full")
    assert presence.recover("outbox") is not None
    assert presence.recover("camera") is None
    assert (presence.status(Counters()).state, presence.degraded_reason()) == ("online", None)


def test_the_will_is_offline_with_its_reason():
    """The will is `offline` although the component works, and does not count as its own Status."""
    presence = Presence("edge-1", "edge")
    will = presence.status(Counters(), offline="the connection broke")
    assert (will.state, will.reason) == ("offline", "the connection broke")
    assert not presence.is_own(encode(STATUS, will))
    assert presence.is_own(encode(STATUS, presence.status(Counters())))


def test_g7_a_long_reason_is_cut_to_the_limit_of_the_contract():
    """G7: a Status with a very long reason is still a valid message."""
    presence = Presence("edge-1", "edge")
    presence.degrade("predict", "x" * 5000)
    assert presence.is_own(encode(STATUS, presence.status(Counters())))


def test_a_reason_may_quote_anything():
    """Bytes of a foreign answer that are not text are escaped; the Status is a valid message."""
    presence = Presence("edge-1", "pi-1")
    presence.degrade("camera", "camera x answered 500 \udcff\x1b[31m")
    status = presence.status(Counters())
    assert status.reason == "camera x answered 500 \\udcff\\x1b[31m"
    assert presence.is_own(encode(STATUS, status))


async def test_a_component_whose_work_is_done_leaves_no_status(address):
    """Such as the controller of a rollout that has ended: nothing is offline that somebody should start."""
    listener = Bus(address, transient_client_id("listener"))
    statuses = listener.subscribe_raw("gleaner/v1/status/cloud/rollout")
    async with running(listener), asyncio.timeout(DEADLINE_S):
        async with running(bus := Bus(address, "done", presence=Presence(CLOUD, "rollout"))):
            bus.finish()
        while (await statuses.get()).payload:
            continue
