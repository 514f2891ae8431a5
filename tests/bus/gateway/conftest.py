"""Fixtures: two real brokers, and a stand-in for KubeEdge between gateway and edge."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bus.broker.locate import Mosquitto
from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker
from tests.router import NODE, StandInRouter


@pytest.fixture
def cloud(broker: BrokerProcess) -> BrokerProcess:
    """The cloud's broker."""
    return broker


@pytest.fixture
def edge(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[BrokerProcess]:
    """The broker of an edge node."""
    process = BrokerProcess(tmp_path / "edge", program=mosquitto)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def listen() -> str:
    """Address for the gateway."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def router(edge: BrokerProcess, listen: str) -> AsyncIterator[StandInRouter]:
    """The stand-in for KubeEdge; loses nothing by default."""
    async with StandInRouter({NODE: Broker(port=edge.port)}, listen, devices=["pi-1"]).running() as stand_in:
        yield stand_in
