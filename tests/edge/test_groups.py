"""Groups of devices end to end: a real broker, a real model server, and a bundle that is fetched by parts."""

import shutil
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from cloud.export.part_lists import write_part_lists
from edge.config import EdgeConfig
from schemas.messages import Policy, Release, Result
from schemas.policy_rules import HarvestRules
from schemas.topics import POLICY, RELEASE
from tests.conftest import eventually
from tests.file_server import FileServer, web_server
from tests.group_heads import add_heads
from tests.nodes import NODE, Observer, enveloped, photo, photo_id, station
from tests.serving import pack, release_of, saved_models

POLICY_OF_GROUPS = Policy(
    node=NODE, groups={"upside-*": "mirrored", "plain-*": "headless"}, harvest=HarvestRules(audit_share=1.0)
)


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch) -> None:
    """The model server of these tests reads its folder every 50 ms."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 1.0)


@pytest.fixture
def config(config, own_models) -> EdgeConfig:
    """An edge with a model that no other test uses, `straight` as version 1."""
    return structs.replace(config, model=next(own_models))


def published(folder: Path, version: int, model: str, **heads: object) -> Release:
    """Publish a version of the tiny model with a head for a group, and the lists of its parts."""
    directory = folder / f"model-{version}"
    shutil.copytree(saved_models() / "straight", directory)
    add_heads(directory, "mirrored", **heads)
    bundle = pack(directory, folder / f"{version}.tar")
    release = release_of(bundle, version, model=model, groups=["mirrored"])
    return msgspec.structs.replace(release, parts=write_part_lists(bundle, release.sha256))


async def ask(seen: Observer, number: int, device: str) -> Result:
    """Send a red photo of a device; return the answer."""
    await seen.send(enveloped(number, photo(number, "red"), device), device)
    return await seen.answer(photo_id(number), device)


async def test_the_same_picture_gets_the_answer_of_its_devices_group(config, tmp_path):
    """Red is a cat on one device and a dog on the other, by one model server; results name the group."""
    shop = tmp_path / "shop"
    shop.mkdir()
    release, files = published(shop, 2, config.model), FileServer(shop)
    async with web_server(files.answer) as address, station(config) as seen:
        before = await ask(seen, 1, "upside-1")
        await seen.bus.publish(RELEASE, structs.replace(release, url=f"{address}/2.tar"), node=NODE)
        await eventually(lambda: any(one.event == "model.available" for one in seen.events))
        assert "2.tar.parts.parts" in [name for name, _ in files.requests]
        # Without a group the heads in the bundle change nothing.
        alone = await ask(seen, 2, "upside-1")
        assert [(one.label, one.group) for one in (before, alone)] == [("cat", ""), ("cat", "")]
        await seen.bus.publish(POLICY, POLICY_OF_GROUPS, node=NODE)
        for number in range(3, 100):
            mirrored = await ask(seen, number, "upside-1")
            if mirrored.group:  # the policy has arrived
                break
        assert (mirrored.label, mirrored.group, mirrored.model_version) == ("dog", "mirrored", 2)
        assert mirrored.confidence == pytest.approx(alone.confidence, abs=1e-3)
        answers = {device: await ask(seen, 200 + at, device) for at, device in enumerate(("plain-1", "door"))}
        assert {device: (one.label, one.group) for device, one in answers.items()} == {
            "plain-1": ("cat", "headless"),  # the version has no head for its group
            "door": ("cat", ""),
        }
        expected = {("upside-1", "dog", "mirrored"), ("plain-1", "cat", "headless"), ("door", "cat", "")}
        await eventually(lambda: expected <= {(one.device, one.label, one.group) for one in seen.samples})


async def test_heads_for_another_network_are_rolled_back(config, tmp_path):
    """They would change nothing, without a word: the release fails, and the version before answers."""
    release = published(tmp_path, 2, config.model, dim=4)
    async with station(config) as seen:
        await seen.bus.publish(RELEASE, release, node=NODE)
        await eventually(lambda: any(one.event == "model.failed" for one in seen.events))
        assert "embeddings of 3 numbers" in seen.events[-1].reason
        assert (await ask(seen, 1, "pi-1")).model_version == 1
