"""What KubeEdge does that one would not expect. The gateway and the outbox are built around these facts.

A test that fails here after a new release of KubeEdge may be good news: something can be made simpler.
"""

from dataclasses import replace
from http import HTTPStatus

import pytest

from schemas.topics import EVENT
from tests.kubeedge.hops import hops, rule, uplink
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.router import target
from tests.kubeedge.settings import BrokerConnection

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(600)]

NODE = NODES[0]
TOPIC = EVENT.name(node=NODE, name="edge")


async def test_only_quic_carries_bytes_that_are_no_text(lab: Lab, link: BrokerConnection) -> None:
    """Over WebSocket every byte that is not UTF-8 becomes U+FFFD: what crosses is JSON, always."""
    photo = b"\xff\xd8\xff\xe0 is how a JPEG begins"
    spoilt = photo.decode(errors="replace").encode()
    async with hops(lab, NODE, link) as way:
        await way.go_up()
        await way.bus.publish_bytes(way.samples, photo)
        assert await way.posted(photo if link.transport == "quic" else spoilt) == "/sample"


async def test_a_message_that_the_target_refuses_is_gone(lab: Lab, link: BrokerConnection) -> None:
    """The answer 500 counts as success: the message is not posted again."""
    async with (
        hops(lab, NODE, link) as way,
        target(HTTPStatus.INTERNAL_SERVER_ERROR) as refusing,
        rule(lab, uplink(NODE, TOPIC, refusing.url("/event"))),
    ):
        await replace(way, target=refusing).go_up(TOPIC)
        for _ in range(3):
            await way.go_up()
        assert len(refusing.posts) == len({post.body for post in refusing.posts})


async def test_a_rule_made_while_its_node_is_away_stays_deaf_until_it_is_made_again(
    lab: Lab, link: BrokerConnection
) -> None:
    """A node is told to subscribe when the rule is made; one that is away then never hears of it."""
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


async def test_what_is_posted_for_a_node_that_is_away_is_lost(lab: Lab, link: BrokerConnection) -> None:
    """Refused over WebSocket; over QUIC "delivered" for half a minute, to a session that is dead."""
    async with hops(lab, NODE, link) as way:
        await way.go_down()
        lab.nodes[NODE].edgecore.kill()
        for number in range(3):
            await way.post(b"lost %d" % number)
        lab.nodes[NODE].edgecore.start()
        assert not [came for came in await way.go_down() if came.startswith(b"lost")]


async def test_a_retained_message_is_posted_again_whenever_edgecore_starts(lab: Lab) -> None:
    """No retained messages on topics that go up."""
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
