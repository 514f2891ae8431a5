"""The broker under test: the one in GLEANER_BROKER, else mosquitto with the configuration of an edge."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from bus.broker.process import BrokerProcess
from bus.config import Tls
from tests.broker_contract.peer import VERSIONS, Node, Peer
from tests.conftest import DEADLINE_S
from tests.sites import broker_of, client_context, files, free_ports, provision

BROKER = "GLEANER_BROKER"
_FOREIGN_DEADLINE_S = 15.0  # a rule that a foreign broker breaks should not cost a minute


def deadline_s() -> float:
    """Return how long a rule waits for an event, in seconds."""
    return _FOREIGN_DEADLINE_S if os.environ.get(BROKER) else DEADLINE_S


@pytest.fixture(scope="session")
def nodes(tmp_path_factory, mosquitto) -> Iterator[list[Node]]:
    """The addresses of the broker under test: several of a cluster, one of a single broker."""
    if addresses := os.environ.get(BROKER):
        yield [Node.parse(address) for address in addresses.split(",")]
        return
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), program=mosquitto)
    process.start()
    yield [Node("127.0.0.1", process.port)]
    process.stop()


@pytest.fixture(params=VERSIONS.values(), ids=VERSIONS)
def version(request) -> MQTTProtocolVersion:
    """Each version of MQTT that Gleaner's clients speak."""
    return request.param


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"gleaner-contract/{secrets.token_hex(8)}"


@pytest.fixture
def peers(nodes, version, topic) -> Iterator[Callable[..., Peer]]:
    """Make a connected client: `at` is the number of the node; nodes are counted in a circle.

    Afterwards all are disconnected, their sessions are removed, and so is what `topic` retains.
    """
    made: dict[tuple[str, MQTTProtocolVersion], Node] = {}
    open_ones: list[Peer] = []

    def peer(name: str, *, at: int = 0, speaks: MQTTProtocolVersion = version, **options) -> Peer:
        node = nodes[at % len(nodes)]
        client_id = f"{name}-{topic[-16:]}"
        client = Peer(node, client_id, speaks, deadline_s(), **options)
        made[client_id, speaks] = node
        open_ones.append(client)
        return client.connect()

    yield peer
    for client in open_ones:
        client.disconnect()
    # A broker that refuses this version of MQTT has failed the test already.
    with contextlib.suppress(AssertionError):
        for (client_id, speaks), node in made.items():
            Peer(node, client_id, speaks, deadline_s()).connect().disconnect()
        cleaner = Peer(nodes[0], f"cleaner-{topic[-16:]}", version, deadline_s()).connect()
        cleaner.publish(topic, b"", retain=True)
        cleaner.disconnect()


@dataclass(frozen=True)
class Site:
    """A listener that requires certificates, and the folder of `gleaner provision` that issued them.

    Args:
        node: The listener.
        folder: The site, with an edge `edge-1` and devices `pi-1` and `pi-2`.
    """

    node: Node
    folder: Path

    @contextmanager
    def client(
        self, folder: str | None, stem: str, client_id: str, version: MQTTProtocolVersion
    ) -> Iterator[Peer]:
        """Yield a connected client with the certificate `stem` of a folder of the site; None: with none."""
        tls = Tls(ca=str(self.folder / "edges/edge-1/ca.pem"))
        if folder is not None:
            tls = files(self.folder / folder, stem)
        peer = Peer(self.node, client_id, version, deadline_s(), tls=client_context(tls))
        try:
            yield peer.connect()
        finally:
            peer.disconnect()


@pytest.fixture(scope="session")
def site(tmp_path_factory, mosquitto) -> Iterator[Site]:
    """The listener of a foreign broker with the site in GLEANER_BROKER_SITE; else mosquitto, provisioned."""
    if os.environ.get(BROKER):
        if not (folder := os.environ.get("GLEANER_BROKER_SITE")):
            pytest.skip("rights by certificate: not offered by the broker under test")
        yield Site(Node.parse(os.environ["GLEANER_BROKER_ACCESS"]), Path(folder))
        return
    folder, port = tmp_path_factory.mktemp("site"), free_ports()
    edge = ("--edge", "edge-1", "--edge-host", f"127.0.0.1:{port}", "--devices", "pi-1,pi-2")
    provision(folder, "--cloud", f"127.0.0.1:{free_ports()}", *edge)
    with broker_of(folder / "edges/edge-1", port, mosquitto):
        yield Site(Node("127.0.0.1", port), folder)
