"""How mosquitto distributes the messages of a shared subscription."""

import asyncio

import pytest

from bus.mqtt.client import Bus, transient_client_id
from schemas.messages import Event
from schemas.topics import EVENT
from tests.conftest import eventually, running


def event(number: int) -> Event:
    return Event(node="n", name="e", event="test.happened", at_ms=number)


@pytest.mark.parametrize(("durable", "kept"), [(True, 5), (False, 0)], ids=["durable", "clean"])
async def test_an_offline_member_keeps_its_share_if_its_session_is_durable(address, durable, kept):
    """The broker queues every second message for it; a member with a clean session has left the group."""

    def member(name: str) -> tuple[Bus, asyncio.Queue]:
        bus = Bus(address, name, durable=durable)
        return bus, bus.subscribe(EVENT, group="members", name="e").queue

    (stays, got), (leaves, _) = member("stays"), member("leaves")
    sender = Bus(address, transient_client_id("sender"))
    async with running(stays, sender):
        async with running(leaves):
            pass
        await sender.publish(
            EVENT, event(0), node="n", name="other"
        )  # handled after the DISCONNECT of `leaves`
        for number in range(10):
            await sender.publish(EVENT, event(number), node="n", name="e")
        await eventually(lambda: got.qsize() == 10 - kept)
        back, waited = member("leaves")
        async with running(back):
            await sender.publish(EVENT, event(10), node="n", name="e")
            await sender.publish(EVENT, event(11), node="n", name="e")
            await eventually(lambda: waited.qsize() == kept + 1)
