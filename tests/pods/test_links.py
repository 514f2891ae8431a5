"""Other ways for edgecore to connect: TLS and its password at the node's broker, QUIC to the cloud."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.pods import addresses as at
from tests.pods.conftest import FIRST, Load, Note
from tests.pods.edge_settings import TLS_PORT, EdgeLink
from tests.pods.kubectl import until
from tests.pods.lab import PodLab

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

_LISTENER = f"""
listener {TLS_PORT} 127.0.0.1
cafile /etc/gleaner/ca.pem
certfile /etc/gleaner/broker.pem
keyfile /etc/gleaner/broker.key
tls_version tlsv1.2
"""


async def test_eventbus_reaches_its_broker_over_tls_with_its_password(
    lab: PodLab, load: Load, note: Note
) -> None:
    """With a listener for it, EventBus speaks TLS, and samples and receipts pass as before."""
    async with (
        tls_listener(lab),
        linked(lab, EdgeLink(broker_tls=True)),
        load("EventBus over TLS") as cameras,
    ):
        await connected(lab, f"dst 127.0.0.1:{TLS_PORT}")
        await cameras.answers(20)
        note("EventBus over TLS", f"{await sockets(lab, f'dst 127.0.0.1:{TLS_PORT}')} connections")


async def test_samples_pass_over_quic(lab: PodLab, load: Load, note: Note) -> None:
    """Without a WebSocket, samples, receipts and a restart of edgecore pass over QUIC."""
    async with linked(lab, EdgeLink("quic")), load("QUIC") as cameras:
        await cameras.answers(20)
        assert await sockets(lab, f"dst {at.CLOUD}:{at.WEBSOCKET}") == 0
        edge = lab.edges[FIRST]
        await asyncio.to_thread(edge.edgecore.kill)
        began = time.monotonic()
        await asyncio.to_thread(edge.edgecore.start)
        await lab.cloud.node_ready(FIRST)
        await cameras.answers(20)
        note("QUIC: edgecore killed, node ready after", f"{time.monotonic() - began:.0f} s")


@asynccontextmanager
async def linked(lab: PodLab, link: EdgeLink) -> AsyncIterator[None]:
    """Let a node's edgecore connect in another way for the length of a block."""
    edge, before = lab.edges[FIRST], lab.edges[FIRST].link
    try:
        await _connect(lab, link)
        yield
    finally:
        await _connect(lab, before)
    assert edge.link == before


async def _connect(lab: PodLab, link: EdgeLink) -> None:
    edge = lab.edges[FIRST]
    await asyncio.to_thread(edge.edgecore.stop)
    edge.configure(lab.cloud.join_token, link)
    await asyncio.to_thread(edge.edgecore.start)
    await lab.cloud.node_ready(FIRST)


@asynccontextmanager
async def tls_listener(lab: PodLab) -> AsyncIterator[None]:
    """Give the broker of edge nodes one more listener for the length of a block."""
    path = "jsonpath={.spec.template.spec.volumes[?(@.name=='config')].configMap.name}"
    name = await lab.kubectl.run("get", "daemonset", "edge-broker", "-o", path)
    before = json.loads(await lab.kubectl.run("get", "configmap", name, "-o", "json"))["data"]

    async def configure(text: str) -> None:
        change = json.dumps({"data": {"mosquitto.conf": text}})
        await lab.kubectl.run("patch", "configmap", name, "-p", change)
        await lab.kubectl.run("rollout", "restart", "daemonset/edge-broker")
        await lab.kubectl.run("rollout", "status", "daemonset/edge-broker", "--timeout=300s")

    try:
        # A listener ends where the next one begins, and the general settings begin after the last.
        await configure(
            before["mosquitto.conf"].replace("\nallow_anonymous", f"{_LISTENER}\nallow_anonymous")
        )
        yield
    finally:
        await configure(before["mosquitto.conf"])


async def connected(lab: PodLab, where: str) -> None:
    """Wait until a node has a connection there."""

    async def is_there() -> bool:
        return await sockets(lab, where) > 0

    await until(is_there, f"a connection {where}", within_s=120, told=lab.edges[FIRST].edgecore.tail)


async def sockets(lab: PodLab, where: str) -> int:
    """Return how many TCP connections a node has there."""
    said = await asyncio.to_thread(
        lab.edges[FIRST].machine.run, "ss", "-Htn", "state", "established", *where.split()
    )
    return len(said.splitlines())
