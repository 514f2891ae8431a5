"""Two sites on one machine, with the same names of nodes and devices: nothing of one reaches the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs

from bus.broker.locate import Mosquitto
from bus.config import Broker, Tls, load
from bus.mqtt.client import Bus
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Store
from schemas.messages import Sample
from schemas.topics import CLOUD, RECEIPT, SAMPLE, STATUS
from tests.conftest import eventually, jpeg, running
from tests.nodes import photo_id
from tests.sites import Client, broker_of, files, free_ports, provision

NODE = "edge-1"


@dataclass(frozen=True)
class OneSite:
    """A provisioned site whose cloud's broker and collector run."""

    folder: Path
    port: int

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "dataset.lance")

    def bridge(self) -> Bus:
        """The node's bridge at the cloud's broker."""
        tls = files(self.folder / f"edges/{NODE}", "bridge")
        return Bus(Broker(port=self.port, tls=tls), "bridge")

    async def online(self) -> None:
        """Wait for the collector: the broker keeps no sample for one that was never there."""
        tls = files(self.folder / "operator", "operator", ca=self.folder / "cloud/ca.pem")
        bus = Bus(Broker(port=self.port + 1, tls=tls), "operator")
        statuses = bus.subscribe(STATUS, node=CLOUD, name="collector")
        async with running(bus):
            while (await anext(statuses)).message().state != "online":
                pass


@contextlib.asynccontextmanager
async def site(folder: Path, program: Mosquitto) -> AsyncIterator[OneSite]:
    port = free_ports()
    provision(folder, "--cloud", f"127.0.0.1:{port}", "--edge", NODE, "--devices", "pi-1")
    config = load(folder / "cloud/collector.toml", CollectorConfig)
    config = structs.replace(config, dataset=str(folder / "dataset.lance"))
    with broker_of(folder / "cloud", port, program):
        collecting = asyncio.create_task(collector.run(config))
        try:
            running_site = OneSite(folder, port)
            await running_site.online()
            yield running_site
            assert not collecting.done(), "the collector ended early"
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)


@pytest.fixture
async def sites(tmp_path: Path, mosquitto: Mosquitto) -> AsyncIterator[tuple[OneSite, OneSite]]:
    """Two sites with the same names."""
    async with site(tmp_path / "north", mosquitto) as north, site(tmp_path / "south", mosquitto) as south:
        yield north, south


def sample(number: int) -> Sample:
    return Sample(
        photo_id=photo_id(number), node=NODE, device="pi-1", image=jpeg(number), width=160, height=120,
        dhash="0" * 16, lane="auto", label="cat", confidence=0.9, scores={"cat": 0.9, "dog": 0.1},
        model="pets", model_version=1, harvested_at_ms=1,
    )  # fmt: skip


def is_accepted(port: int, tls: Tls) -> bool:
    """Return True if a broker lets a client with this certificate in."""
    client = Client(port, tls, client_id="stranger")
    try:
        return client.connect()
    finally:
        client.__exit__()


async def test_sites_do_not_mix(sites: tuple[OneSite, OneSite]) -> None:
    """A sample is stored in its own site's dataset alone, and its receipt is heard there alone.

    A client of one site that trusts the other's authority is refused at its broker.
    """
    north, south = sites
    buses = [one.bridge() for one in sites]
    heard = [bus.subscribe(RECEIPT, node=NODE) for bus in buses]
    async with running(*buses):
        for at, bus in enumerate(buses):
            await bus.publish(SAMPLE, sample(at), node=NODE)
        for at, receipts in enumerate(heard):
            assert (await anext(receipts)).message().photo_id == photo_id(at)
        await eventually(lambda: [one.store.count() for one in sites] == [1, 1])
        assert [[row["photo_id"] for row in one.store.scan(["photo_id"])] for one in sites] == [
            [photo_id(0)],
            [photo_id(1)],
        ]
        assert all(receipts.queue.empty() for receipts in heard)
    for own, other in ((north, south), (south, north)):
        folder = f"edges/{NODE}"
        own_files = files(own.folder / folder, "bridge")
        trusting = files(own.folder / folder, "bridge", ca=other.folder / folder / "ca.pem")
        assert is_accepted(own.port, own_files)
        assert not is_accepted(other.port, trusting)
