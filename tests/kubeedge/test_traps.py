"""Unexpected behaviour of KubeEdge that the gateway and the outbox work around.

If a test fails with a new release of KubeEdge, a workaround may have become unnecessary.
"""

from dataclasses import replace
from http import HTTPStatus

import pytest

from schemas.topics import EVENT
from tests.kubeedge.hops import hops, rule, uplink
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.router import target
from tests.kubeedge.settings import BrokerConnection

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(1800)]

NODE = NODES[0]
TOPIC = EVENT.name(node=NODE, name="edge")


async def test_only_quic_carries_binary_messages(lab: Lab, link: BrokerConnection) -> None:
    """Over WebSocket every byte that is not UTF-8 becomes U+FFFD; therefore all messages are JSON."""
    photo = b"\xff\xd8\xff\xe0 is how a JPEG begins"
    corrupted = photo.decode(errors="replace").encode()
    async with hops(lab, NODE, link) as way:
        await way.go_up()
        await way.bus.publish_bytes(way.samples, photo)
        assert await way.posted(photo if link.transport == "quic" else corrupted) == "/sample"


async def test_a_message_that_the_target_refuses_is_lost(lab: Lab, link: BrokerConnection) -> None:
    """Status 500 counts as success: the message is not posted again."""
    async with (
        hops(lab, NODE, link) as way,
        target(HTTPStatus.INTERNAL_SERVER_ERROR) as refusing,
        rule(lab, uplink(NODE, TOPIC, refusing.url("/event"))),
    ):
        await replace(way, target=refusing).go_up(TOPIC)
        for _ in range(3):
            await way.go_up()
        assert len(refusing.posts) == len({post.body for post in refusing.posts})


async def test_a_rule_created_while_its_node_is_offline_works_only_when_created_again(
    lab: Lab, link: BrokerConnection
) -> None:
    """A node subscribes when the Rule is created; an offline node never does."""
    async with hops(lab, NODE, link) as way:
        made = uplink(NODE, TOPIC, way.target.url("/event"))
        lab.nodes[NODE].edgecore.stop()
        async with rule(lab, made):
            lab.nodes[NODE].edgecore.start()
            await lab.connected(NODE)
            await way.bus.publish_bytes(TOPIC, b"unheard")
            await way.go_up()
        async with rule(lab, made):
            await way.go_up(TOPIC)
        assert b"unheard" not in {post.body for post in way.target.posts}


async def test_a_post_for_an_offline_node_is_lost(lab: Lab, link: BrokerConnection) -> None:
    """Over WebSocket it is refused; over QUIC the Router answers 200 for half a minute, and loses it."""
    async with hops(lab, NODE, link) as way:
        await way.go_down()
        lab.nodes[NODE].edgecore.kill()
        for number in range(3):
            await way.post(b"lost %d" % number)
        lab.nodes[NODE].edgecore.start()
        assert not [message for message in await way.go_down() if message.startswith(b"lost")]


async def test_a_retained_message_is_posted_again_at_each_start_of_edgecore(lab: Lab) -> None:
    """Therefore no topic towards the cloud may have retained messages."""
    async with hops(lab, NODE, BrokerConnection("websocket")) as way:
        await way.go_up()
        await way.bus.publish_bytes(way.samples, b"kept", retain=True)
        try:
            await way.posted(b"kept")
            lab.nodes[NODE].edgecore.stop()
            lab.nodes[NODE].edgecore.start()
            await way.posted(b"kept")
        finally:
            await way.bus.publish_bytes(way.samples, b"", retain=True)
