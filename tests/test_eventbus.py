"""Edge and collector over a simulated KubeEdge lose and double nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker, OutboxLimits
from bus.gateway.config import GatewayConfig
from bus.mqtt.client import Bus, transient_client_id
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Store
from edge.config import EdgeConfig, EventBusLimits
from schemas.messages import Policy
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import POLICY, RELEASE
from tests.conftest import eventually, running
from tests.nodes import NODE, Observer, edge_config, edge_running, enveloped, photo, photo_id
from tests.router import StandInRouter, gateway_running
from tests.serving import ModelServer, pack, place, release_of, saved_models

PHOTOS = 200
QUICK = OutboxLimits(resend_first_s=0.5, resend_cap_s=2.0)


@pytest.fixture
def edge_broker(tmp_path, mosquitto) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "edge-broker", program=mosquitto)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def model_server(tmp_path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "models", "pets")
    place("straight", tmp_path / "models/pets", 1)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_port()}"


def gateway(address: Broker, listen: str, router: StandInRouter) -> GatewayConfig:
    return GatewayConfig(broker=address, listen=listen, router=router.url, nodes=(NODE,), retry_cap_s=0.5)


def over_eventbus(at_edge: Broker, server: ModelServer, folder: Path) -> EdgeConfig:
    return edge_config(
        at_edge,
        server.address,
        folder,
        models_dir=str(server.base),
        uplink="eventbus",
        eventbus=EventBusLimits(per_s=200),
        outbox=QUICK,
        waiting_per_device=PHOTOS,
        harvest=HarvestRules(near_duplicate_s=0, caps=Caps(per_minute=PHOTOS)),
    )


@pytest.mark.slow
async def test_g2_over_an_eventbus_that_loses_a_fifth_each_way_every_sample_is_stored_once(
    tmp_path, address, edge_broker, model_server, listen
):
    """With 20 % lost, 10 % doubled and all reordered each way, 200 of 200 samples are stored once."""
    at_edge = Broker(port=edge_broker.port)
    router = StandInRouter({NODE: at_edge}, listen, loss=0.2, doubling=0.1, seed=1)
    dataset = str(tmp_path / "dataset.lance")
    collecting = asyncio.create_task(collector.run(CollectorConfig(broker=address, dataset=dataset)))
    async with (
        router.running(),
        gateway_running(gateway(address, listen, router)),
        Observer(at_edge).watching() as devices,
        edge_running(over_eventbus(at_edge, model_server, tmp_path)),
    ):
        await devices.status("online")
        for number in range(PHOTOS):
            await devices.send(enveloped(number, photo(number)))
        await eventually(lambda: len(devices.final()) == PHOTOS)
        await eventually(lambda: len({one.photo_id for one in devices.receipts}) == PHOTOS)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    assert min(router.counts["up lost"], router.counts["down lost"]) > PHOTOS * 0.1
    assert router.counts["leaked"] == 0
    store = Store.open(dataset)
    ids = [photo_id(number) for number in range(PHOTOS)]
    assert (set(store.find(ids, ["photo_id"])), store.count()) == (set(ids), PHOTOS)


@pytest.mark.slow
async def test_policy_and_release_reach_a_node_that_was_offline(
    tmp_path, address, edge_broker, model_server, listen
):
    """They arrive when the node is back, and survive a restart of the edge without the cloud."""
    at_edge = Broker(port=edge_broker.port)
    router = StandInRouter({NODE: at_edge}, listen, away={NODE})
    edge = over_eventbus(at_edge, model_server, tmp_path)
    bundle = pack(saved_models() / "swapped", tmp_path / "2.tar")
    nothing = Policy(node=NODE, harvest=HarvestRules(caps=Caps(per_minute=0)))
    async with Observer(at_edge).watching() as devices:
        cloud = Bus(address, transient_client_id("cloud"))
        async with (
            router.running(),
            gateway_running(gateway(address, listen, router)),
            edge_running(edge),
            running(cloud),
        ):
            await cloud.publish(POLICY, nothing, node=NODE)
            await cloud.publish(RELEASE, release_of(bundle, 2), node=NODE)
            await eventually(lambda: router.counts["down away"] >= 4)
            router.away.clear()
            await eventually(lambda: served(devices) == 2)
            await eventually((Path(edge.state_dir) / "last-policy").exists)
        async with edge_running(edge):  # without the cloud
            await devices.status("online")
            await devices.send(enveloped(1, photo(1)))
            answer = await devices.answer(photo_id(1))
    assert (answer.model_version, answer.harvest) == (2, "cap-per-minute")


def served(devices: Observer) -> int | None:
    model = devices.newest().model
    return None if model is None else model.version
