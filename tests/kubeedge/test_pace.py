"""Samples per second through a Rule, with KubeEdge's default limit and with a higher one."""

import asyncio
import json

import pytest

from tests.kubeedge.conftest import Note
from tests.kubeedge.hops import Hops, hops
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.settings import BrokerConnection, Transport

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(1800)]

SAMPLE_BYTES = 30_000  # a photo of 320 pixels on its short side, in base64
WITHIN_S = 1200


@pytest.mark.parametrize(("messages_per_s", "count"), [(30, 300), (1000, 2000)])
@pytest.mark.parametrize("transport", ["websocket", "quic"])
async def test_every_sample_arrives_once_while_connected(
    lab: Lab, transport: Transport, messages_per_s: int, count: int, note: Note
) -> None:
    """Samples published at full speed are all posted, each once, in any order."""
    async with hops(lab, NODES[0], BrokerConnection(transport, messages_per_s)) as way:
        await way.go_up()
        already = len(way.target.posts)
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(flood(way, count))
            while len(way.target.posts) < already + count:
                await way.target.got.get()
        posts = way.target.posts[already:]
        numbers = [json.loads(post.body)["number"] for post in posts]
        assert sorted(numbers) == list(range(count))
        steady = posts[count // 4 :]  # after the burst that the limit allows
        rate = len(steady) / (steady[-1].at - steady[0].at)
        late = max(max(numbers[: place + 1]) - number for place, number in enumerate(numbers))
        what = f"samples of {SAMPLE_BYTES // 1000} kB, {transport}, messageQPS {messages_per_s}"
        note(what, f"{rate:.0f} / s, up to {late} places late")


async def flood(way: Hops, count: int) -> None:
    """Publish samples as fast as the broker accepts them."""
    filling = "x" * SAMPLE_BYTES
    for number in range(count):
        message = json.dumps({"number": number, "image": filling}).encode()
        await way.bus.publish_bytes(way.samples, message)
