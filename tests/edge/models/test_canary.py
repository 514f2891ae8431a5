"""Versions that end their model server, and model servers that end by themselves: who is to blame."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.config import EdgeConfig
from edge.serving.client import Predictor
from tests.conftest import eventually
from tests.nodes import Observer, edge_config, edge_running, station
from tests.trials import look_often, release, said, told, trial

CANARY = {"stage": "canary", "share": 1.0, "baseline": 1}


@dataclass
class Fate:
    """How many more calls of a version end the model server, and how many did."""

    left: int = 0
    ended: int = 0


@pytest.fixture
def fatal(own_serving, monkeypatch) -> Fate:
    """Version 2 ends its model server when the test says how many times; the server is started again."""
    fate = Fate()

    class Mortal(Predictor):
        async def predict(self, images, version=None, *, timeout_s=None):
            if version == 2 and fate.left:
                fate.left, fate.ended = fate.left - 1, fate.ended + 1
                own_serving.kill()
                own_serving.launch()
            return await super().predict(images, version, timeout_s=timeout_s)

    monkeypatch.setattr("edge.service.Predictor", Mortal)
    return fate


@pytest.fixture
def config(address, own_serving, tmp_path, monkeypatch) -> EdgeConfig:
    """An edge that looks often, with a model server of its own, started."""
    look_often(monkeypatch)
    own_serving.start()
    return edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))


async def test_g6_a_challenger_that_ends_the_server_again_and_again_is_given_up(config, bundles, fatal):
    """Restored twice, then the trial is over, the Event says why, and the champion serves alone."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await told(seen, "model.tried")
        fatal.left = 9
        while not [one for one in seen.events if one.event == "model.failed"]:
            assert (await said(seen, within_s=60))[1] in {1, 2}
        failed = await told(seen, "model.failed")
        assert failed.facts["version"] == 2
        assert failed.reason == (
            "model pets version 2: expected to serve beside version 1, "
            "got a model server that has lost it after 3 loads"
        )
        assert fatal.ended == 3
        assert await said(seen, within_s=60) == ("cat", 1)
        await eventually(lambda: trial(seen) is None)
        async with Predictor(config.serving, config.model) as predictor:
            assert (await predictor.served(2)).state != "available"


async def test_g6_a_challenger_is_given_up_over_restarts_of_the_edge(config, bundles, fatal):
    """What ends the model server may end the edge too: it counts on, and after the verdict tries no more."""
    async with Observer(config.broker).watching() as seen:
        fatal.left = 9
        for ended in (1, 2, 3):
            async with edge_running(config):
                await release(seen, config, bundles["swapped"], 2, released_at_ms=7, **CANARY)
                await eventually(lambda wanted=ended: fatal.ended == wanted, within_s=60)
        for number in range(2):
            async with edge_running(config):
                assert "lost it after 3 loads" in (await told(seen, "model.failed", number)).reason
                assert await said(seen, within_s=60) == ("cat", 1)
        assert fatal.ended == 3


async def test_g6_a_challenger_that_was_given_up_is_not_fetched_again(config, bundles, fatal, tmp_path):
    """The retained release comes after each restart: the verdict stands without its bundle."""
    bundle = Path(shutil.copy(bundles["swapped"], tmp_path / "2.tar"))
    async with Observer(config.broker).watching() as seen:
        fatal.left = 9
        for number in range(2):
            async with edge_running(config):
                facts = {"released_at_ms": 7, "url": bundle.as_uri()} | CANARY
                await release(seen, config, bundles["swapped"], 2, **facts)
                assert "lost it after 3 loads" in (await told(seen, "model.failed", number)).reason
            await asyncio.to_thread(bundle.unlink, missing_ok=True)


async def test_g6_a_server_that_was_started_anew_is_told_again(config, bundles, fatal):
    """Also in the middle of a try-out: at once, and without blame for the version."""
    fatal.left = 1
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await told(seen, "model.tried")
        assert fatal.ended == 1
        assert await said(seen) == ("dog", 2)
        assert not [one for one in seen.events if one.event == "model.failed"]


async def test_g6_a_challenger_that_stays_long_is_not_blamed(config, bundles, own_serving, monkeypatch):
    """However often the model server is started anew, if the challenger stays with it for long each time."""
    monkeypatch.setattr("edge.models.canary._STEADY_S", 0.0)
    loads = Path(config.state_dir) / "releases/pets-2.loads"
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await told(seen, "model.tried")
        for _ in range(4):
            await eventually(lambda: not loads.exists())
            own_serving.kill()
            own_serving.launch()
            await eventually(loads.exists, within_s=60)
        await eventually(lambda: trial(seen) is not None)
        assert await said(seen) == ("dog", 2)
        assert not [one for one in seen.events if one.event == "model.failed"]


@pytest.mark.parametrize(("ends", "event"), [(2, "model.available"), (9, "model.failed")])
async def test_g6_a_release_that_ends_the_server_again_and_again_is_given_up(
    config, bundles, fatal, ends, event
):
    """Three times in its try-out, and the version before is back; not if the server stays at last."""
    fatal.left = ends
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2)
        said_so = await told(seen, event)
        assert said_so.facts["version"] == 2
        assert ends == 2 or "went away 3 times" in said_so.reason
        assert fatal.ended == min(ends, 3)
        assert await said(seen, within_s=60) == (("dog", 2) if event == "model.available" else ("cat", 1))
