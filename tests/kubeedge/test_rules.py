"""Rules on a real KubeEdge: from EventBus to an HTTP endpoint, and from the Router to EventBus."""

import json
import time

import pytest

from tests.kubeedge.conftest import Note
from tests.kubeedge.hops import hops
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.settings import BrokerConnection

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("node", NODES)
async def test_a_message_of_a_node_reaches_the_target_of_its_rule(
    lab: Lab, node: str, link: BrokerConnection
) -> None:
    """A JSON message on `gleaner/v1/sample/{node}` is posted unchanged to the URL of the Rule."""
    async with hops(lab, node, link) as way:
        await way.go_up()
        message = json.dumps({"photo_id": "0" * 32, "classes": ["Katze", "Hündin"]}, ensure_ascii=False)
        await way.bus.publish_bytes(way.samples, message.encode())
        assert await way.posted(message.encode()) == "/sample"


async def test_a_post_to_the_router_is_published_at_its_node_only(lab: Lab, link: BrokerConnection) -> None:
    """`POST {router}/{node}/{namespace}/{path}` is published on the Rule's topic at that node's broker."""
    async with hops(lab, NODES[0], link) as first, hops(lab, NODES[1], link) as second:
        for way, other in ((first, second), (second, first)):
            await way.go_down()
            assert other.receipts.empty()


async def test_rules_work_again_after_edgecore_was_killed(
    lab: Lab, link: BrokerConnection, note: Note
) -> None:
    """A restarted edgecore restores its subscriptions."""
    async with hops(lab, NODES[0], link) as way:
        await way.go_up()
        began = time.monotonic()
        lab.nodes[way.node].edgecore.kill()
        lab.nodes[way.node].edgecore.start()
        await way.go_up()
        await way.go_down()
        note(f"edgecore killed, {link.transport}: works again after", f"{time.monotonic() - began:.0f} s")


async def test_rules_work_again_after_cloudcore_was_killed(lab: Lab, note: Note) -> None:
    """Two nodes, one per transport, send and receive again without intervention."""
    first, second = BrokerConnection("websocket"), BrokerConnection("quic")
    async with hops(lab, NODES[0], first) as one, hops(lab, NODES[1], second) as other:
        await one.go_up()
        await other.go_up()
        began = time.monotonic()
        lab.cloudcore.kill()
        lab.cloudcore.start()
        for way in (one, other):
            await way.go_up()
            await way.go_down()
            note(f"cloudcore killed: {way.node} works again after", f"{time.monotonic() - began:.0f} s")
