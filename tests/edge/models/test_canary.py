"""Challengers that crash the model server, and restarts of the server for other reasons."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.config import EdgeConfig
from edge.serving.client import Predictor
from tests.canaries import canary_report, classify, nth_event, release, shorten_intervals
from tests.conftest import eventually
from tests.nodes import Observer, edge_config, edge_running, station

pytestmark = pytest.mark.slow

CANARY = {"stage": "canary", "share": 1.0, "baseline": 1}


@dataclass
class Crashes:
    """How many more calls of version 2 crash the model server, and how many did."""

    left: int = 0
    count: int = 0


@pytest.fixture
def crashes(own_serving, monkeypatch) -> Crashes:
    """Let version 2 crash its model server as often as a test sets; the server is started again."""
    crashes = Crashes()

    class Crashing(Predictor):
        async def predict(self, images, version=None, *, timeout_s=None):
            crash(version)
            return await super().predict(images, version, timeout_s=timeout_s)

        async def smoke_test(self, version=None, *, timeout_s=None):
            crash(version)
            return await super().smoke_test(version, timeout_s=timeout_s)

    def crash(version):
        if version == 2 and crashes.left:
            crashes.left, crashes.count = crashes.left - 1, crashes.count + 1
            own_serving.kill()
            own_serving.launch()

    monkeypatch.setattr("edge.service.Predictor", Crashing)
    return crashes


@pytest.fixture
def config(address, own_serving, tmp_path, monkeypatch) -> EdgeConfig:
    """An edge with short intervals and a running model server that no other test uses."""
    shorten_intervals(monkeypatch)
    own_serving.start()
    return edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))


async def test_g6_a_challenger_that_keeps_crashing_the_server_is_rejected(config, bundles, crashes):
    """After three loads the canary ends, an event names the reason, and the champion serves alone."""
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await nth_event(seen, "model.tried")
        crashes.left = 9
        while not [one for one in seen.events if one.event == "model.failed"]:
            assert (await classify(seen))[1] in {1, 2}
        failed = await nth_event(seen, "model.failed")
        assert failed.facts["version"] == 2
        assert failed.reason == (
            "model pets version 2 failed as the challenger of version 1: "
            "the model server lost it after 3 loads"
        )
        assert crashes.count == 3
        assert await classify(seen) == ("cat", 1)
        await eventually(lambda: canary_report(seen) is None)
        async with Predictor(config.serving, config.model) as predictor:
            assert (await predictor.model_status(2)).state != "available"


async def test_g6_loads_of_a_challenger_are_counted_across_restarts_of_the_edge(config, bundles, crashes):
    """The count is on disk, and after the verdict the challenger is not loaded again."""
    async with Observer(config.broker).watching() as seen:
        crashes.left = 9
        for number in (1, 2, 3):
            async with edge_running(config):
                await release(seen, config, bundles["swapped"], 2, released_at_ms=7, **CANARY)
                await eventually(lambda wanted=number: crashes.count == wanted)
        for number in range(2):
            async with edge_running(config):
                assert "lost it after 3 loads" in (await nth_event(seen, "model.failed", number)).reason
                assert await classify(seen) == ("cat", 1)
        assert crashes.count == 3


async def test_g6_a_rejected_challenger_is_not_downloaded_again(config, bundles, crashes, tmp_path):
    """The retained release arrives after each restart; the verdict needs no bundle."""
    bundle = Path(shutil.copy(bundles["swapped"], tmp_path / "2.tar"))
    async with Observer(config.broker).watching() as seen:
        crashes.left = 9
        for number in range(2):
            async with edge_running(config):
                facts = {"released_at_ms": 7, "url": bundle.as_uri()} | CANARY
                await release(seen, config, bundles["swapped"], 2, **facts)
                assert "lost it after 3 loads" in (await nth_event(seen, "model.failed", number)).reason
            await asyncio.to_thread(bundle.unlink, missing_ok=True)


async def test_g6_a_restarted_server_is_configured_again(config, bundles, crashes):
    """Also during the smoke test, and one crash does not reject the version."""
    crashes.left = 1
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await nth_event(seen, "model.tried")
        assert crashes.count == 1
        assert await classify(seen) == ("dog", 2)
        assert not [one for one in seen.events if one.event == "model.failed"]


async def test_g6_a_challenger_that_stays_loaded_is_not_rejected_for_restarts(
    config, bundles, own_serving, monkeypatch
):
    """Its count of loads is reset each time that it stays loaded for long."""
    monkeypatch.setattr("edge.models.reconcile.STABLE_AFTER_S", 0.0)
    loads = Path(config.state_dir) / "releases/pets-2.loads"
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2, **CANARY)
        await nth_event(seen, "model.tried")
        for _ in range(4):
            await eventually(lambda: not loads.exists())
            own_serving.kill()
            own_serving.launch()
            await eventually(loads.exists)
        await eventually(lambda: canary_report(seen) is not None)
        assert await classify(seen) == ("dog", 2)
        assert not [one for one in seen.events if one.event == "model.failed"]


@pytest.mark.parametrize(("times", "event"), [(2, "model.available"), (9, "model.failed")])
async def test_g6_a_release_that_keeps_crashing_the_server_is_rolled_back(
    config, bundles, crashes, times, event
):
    """Three crashes during its smoke test restore the previous version; two do not."""
    crashes.left = times
    async with station(config) as seen:
        await release(seen, config, bundles["swapped"], 2)
        outcome = await nth_event(seen, event)
        assert outcome.facts["version"] == 2
        assert times == 2 or "went away 3 times" in outcome.reason
        assert crashes.count == min(times, 3)
        assert await classify(seen) == (("dog", 2) if event == "model.available" else ("cat", 1))
