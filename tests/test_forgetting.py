"""`gleaner cloud forget` with a real edge and a real collector: nothing of a camera is left or returns."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.config import Broker
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.change_log import ChangeLog
from cloud.dataset.store import Store
from schemas.topics import SAMPLE
from tests.canaries import single_model_server
from tests.cli.conftest import gleaner
from tests.conftest import eventually
from tests.nodes import NODE, Observer, edge_config, edge_running, enveloped, photo, photo_id


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with single_model_server(tmp_path_factory.mktemp("models")) as running:
        yield running


@asynccontextmanager
async def collecting(address: Broker, dataset: Path, seen: Observer) -> AsyncIterator[None]:
    task = asyncio.create_task(collector.run(CollectorConfig(broker=address, dataset=str(dataset))))
    await seen.status("online", "collector")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def photos(dataset: Path) -> set[int]:
    rows = Store.open(dataset, create=False).scan(["photo_id"])
    return {int(str(row["photo_id"]), 16) for row in rows}


async def test_a_forgotten_camera_is_forgotten_everywhere(server, address, tmp_path):
    """In the dataset at once, at an edge that is away when it returns; a sample in transit stays out."""
    dataset, at = tmp_path / "dataset", ("--broker", f"127.0.0.1:{address.port}")
    config = edge_config(address, server.address, tmp_path / "edge", models_dir=str(server.base))
    where = ("--dataset", dataset, *at)

    async def unforgotten() -> list[str]:
        done = await gleaner("cloud", "status", "--json", *where)
        return [one["node"] for one in json.loads(done.out)["unforgotten"]]

    async with Observer(address).watching() as seen:

        async def harvest(number: int, device: str) -> None:
            await seen.send(enveloped(number, photo(number), device), device)
            await seen.answer(photo_id(number), device)

        async with edge_running(config):
            await seen.status("online")
            async with collecting(address, dataset, seen):
                await harvest(0, "pi-1")
                await harvest(1, "pi-2")
                await eventually(lambda: len(seen.receipts) >= 2)
            await harvest(2, "pi-1")  # these two wait at the edge
            await harvest(3, "pi-2")
            await eventually(lambda: len({sample.photo_id for sample in seen.samples}) == 4)
        await seen.status("offline")
        words = ("--device", f"{NODE}/pi-1", "--by", "ann", "--yes", "--wait", "0")
        done = await gleaner("cloud", "forget", *words, "--cache", tmp_path / "cache", *where)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[0] == "1 photos and 0 dead letters forgotten"
        assert "not yet by edge-1 (edge is offline)" in done.out
        assert photos(dataset) == {1}
        assert await unforgotten() == [NODE]
        changes = list(ChangeLog.open(dataset).newest(9))
        assert [(one.action, one.by) for one in changes] == [("forget", "ann"), ("forget-at-edges", "ann")]
        assert "edges: edge-1" in changes[1].detail

        on_its_way = next(sample for sample in seen.samples if sample.photo_id == photo_id(2))
        seen.receipts.clear()
        async with collecting(address, dataset, seen):
            await seen.bus.publish(SAMPLE, on_its_way, node=NODE)
            await eventually(lambda: bool(seen.receipts))
            receipt = seen.receipts[0]
            assert (receipt.photo_id, receipt.status) == (photo_id(2), "refused")
            assert receipt.reason.startswith("forgotten: ")
            async with edge_running(config):
                await eventually(lambda: any(one.event == "photos.forgotten" for one in seen.events))
                await eventually(lambda: photos(dataset) == {1, 3})
                assert await unforgotten() == []
                await harvest(4, "pi-1")  # later photos of the camera are new
                await eventually(lambda: photos(dataset) == {1, 3, 4})


async def test_without_a_broker_nothing_is_forgotten_unless_the_cloud_alone_is_meant(address, tmp_path):
    """Edges cannot be reached: one error with the option that leaves them out, and no change."""
    dataset = tmp_path / "dataset"
    Store.open(dataset)
    words = ("cloud", "forget", "--before", "2026-01-01", "--yes", "--dataset", dataset)
    refused = await gleaner(*words, "--broker", "127.0.0.1:1")
    assert refused.code == 75
    assert refused.sentence.endswith("; or forget in the cloud alone with --no-edges")
    assert list(ChangeLog.open(dataset).newest(9)) == []
    assert (await gleaner(*words, "--no-edges", "--cache", tmp_path / "cache")).code == 0
