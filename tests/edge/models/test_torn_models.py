"""A power loss tears a placed model: the old version answers, and the new one is fetched again (G6)."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from edge.config import EdgeConfig
from edge.models import manifest
from schemas.topics import RELEASE
from tests.conftest import eventually
from tests.edge.models.test_deployer import nth_event
from tests.nodes import NODE, Observer, edge_config, edge_running, enveloped, photo, photo_id, station
from tests.serving import ModelServer, release_of


@contextlib.asynccontextmanager
async def supervised(server: ModelServer):
    """Start the model server again whenever it ends, as a supervisor does."""

    async def supervise() -> None:
        while True:
            server.launch()
            assert server._process is not None
            await asyncio.to_thread(server._process.wait)

    supervising = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)
        server.kill()


def move(source: Path, target: Path) -> None:
    source.rename(target)


def damage_record(config: EdgeConfig, old: str, new: str) -> bytes:
    """Replace a part of the record of version 2; returns the intact content."""
    content = read_record(config)
    Path(config.state_dir, "releases", f"{config.model}-2.json").write_bytes(
        content.replace(old.encode(), new.encode())
    )
    return content


def read_record(config: EdgeConfig) -> bytes:
    return Path(config.state_dir, "releases", f"{config.model}-2.json").read_bytes()


def torn_file(base: Path) -> Path:
    """Return the file that a power loss empties: the variables, or the graph of a model without any."""
    variables = sorted((base / "2").glob("variables/variables.data*"))
    return variables[0] if variables else base / "2" / "saved_model.pb"


@pytest.mark.parametrize("retained", [True, False], ids=["released-anew", "release-lost"])
async def test_g6_a_torn_model_heals(address, own_serving, bundles, tmp_path, monkeypatch, retained):
    """G6: no server starts with emptied files; the old version answers until the new one is fetched again."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 0.5)
    own_serving.start()
    config: EdgeConfig = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    base = own_serving.base / "pets"
    released = release_of(bundles["swapped"], 2)
    async with station(config) as seen:
        await seen.bus.publish(RELEASE, released, node=NODE)
        await nth_event(seen, "model.available")
        if not retained:  # the broker lost it too
            await seen.bus.publish_bytes(RELEASE.name(node=NODE), b"", retain=True)
    own_serving.kill()
    torn_file(base).write_bytes(b"")
    hidden = bundles["swapped"]
    away = hidden.with_suffix(".away")
    move(hidden, away)
    try:
        # Its Status is `degraded` while the bundle cannot be fetched.
        async with supervised(own_serving), Observer(address).watching() as seen, edge_running(config):
            await seen.send(enveloped(1, photo(1, "red")))
            assert (await seen.answer(photo_id(1))).model_version == 1, "the old version answers meanwhile"
            move(away, hidden)
            await nth_event(seen, "model.available")
            await seen.send(enveloped(2, photo(2, "red")))
            assert (await seen.answer(photo_id(2))).model_version == 2
            await eventually(lambda: manifest.Verifier().damage(base / "2") is None)
    finally:
        with contextlib.suppress(FileNotFoundError):
            move(away, hidden)


async def test_g6_a_torn_model_of_an_earlier_release_heals(
    address, own_serving, bundles, tmp_path, monkeypatch
):
    """G6: without a manifest nothing shows that it is torn; while no server serves it, it is fetched."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 0.5)
    own_serving.start()
    config: EdgeConfig = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    base = own_serving.base / "pets"
    async with station(config) as seen:
        await seen.bus.publish(RELEASE, release_of(bundles["swapped"], 2), node=NODE)
        await nth_event(seen, "model.available")
    own_serving.kill()
    torn_file(base).write_bytes(b"")
    (base / "2" / manifest.NAME).unlink()
    async with supervised(own_serving), station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red")))
        assert (await seen.answer(photo_id(1))).model_version == 2
    assert (base / "2" / manifest.NAME).exists()


async def test_g6_a_damaged_record_heals(address, own_serving, bundles, tmp_path):
    """G6: a record with a flipped bit does not make the node refuse the release that it serves."""
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    released = release_of(bundles["swapped"], 2)
    async with station(config) as seen:
        await seen.bus.publish(RELEASE, released, node=NODE)
        await nth_event(seen, "model.available")
    content = damage_record(config, released.sha256, "0" * 64)
    async with station(config) as seen:
        await eventually(lambda: read_record(config) == content)
        assert not [event for event in seen.events if event.event == "model.failed"]
        await seen.send(enveloped(3, photo(3, "red")))
        assert (await seen.answer(photo_id(3))).model_version == 2
