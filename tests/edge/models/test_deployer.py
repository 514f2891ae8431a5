"""Releases end to end: from the topic to a version that answers, and back from one that must not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from edge.config import EdgeConfig
from schemas.messages import Event
from schemas.topics import RELEASE
from tests.conftest import eventually
from tests.nodes import NODE, Observer, edge_running, enveloped, photo, photo_id, station
from tests.serving import place, release_of, saved_models, tar_of


@pytest.fixture(autouse=True)
def watchful_server(monkeypatch) -> None:
    """The server of these tests looks every 50 ms, so an edge need not wait as long as for another."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 1.0)


@pytest.fixture
def config(config, own_models) -> EdgeConfig:
    """An edge whose model is its own, with `straight` as version 1."""
    return structs.replace(config, model=next(own_models))


@pytest.fixture
def base(config) -> Path:
    """Where that model's versions are."""
    return Path(config.models_dir) / config.model


@pytest.fixture
def release(config):
    """A function that releases a version of that model."""

    async def publish(seen: Observer, bundle: Path, version: int, **changes: object) -> None:
        facts = {"model": config.model} | changes
        await seen.bus.publish(RELEASE, release_of(bundle, version, **facts), node=NODE)

    return publish


async def told(seen: Observer, event: str, number: int = 0) -> Event:
    """Wait for the n-th event of a kind."""

    def found() -> list[Event]:
        return [one for one in seen.events if one.event == event]

    await eventually(lambda: len(found()) > number, within_s=40)
    return found()[number]


async def label(seen: Observer, number: int) -> tuple[str, int]:
    """Return what a red photo is called now, and by which version."""
    await seen.send(enveloped(number, photo(number, "red")))
    answer = await seen.answer(photo_id(number))
    return answer.label, answer.model_version


@asynccontextmanager
async def asking(seen: Observer) -> AsyncIterator[list[int]]:
    """Send photos one after the other for the length of a block; yields their numbers."""
    sent: list[int] = []

    async def send() -> None:
        while True:
            sent.append(1000 + len(sent))
            await seen.send(enveloped(sent[-1], photo(sent[-1], "red"), "asker"), "asker")
            await eventually(lambda: len(seen.final("asker")) > len(sent) - 4)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: len(seen.final("asker")) == len(sent))


async def test_g6_a_release_comes_into_service(config, release, bundles):
    """Fetched, verified, placed and tried out; then Status and an Event say so, and it answers."""
    async with station(config) as seen:
        assert await label(seen, 1) == ("cat", 1)
        await release(seen, bundles["swapped"], 2)
        event = await told(seen, "model.available")
        assert event.facts["version"] == 2
        assert await label(seen, 2) == ("dog", 2)
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        assert seen.newest().model.state == "available"


def members(model: str) -> list[tuple[str, bytes]]:
    root = saved_models() / model
    return [(str(path.relative_to(root)), path.read_bytes()) for path in root.rglob("*") if path.is_file()]


def hostile(folder: Path) -> dict[str, Path]:
    """Return bundles that are no models, by name."""
    nameless = [(name, content) for name, content in members("swapped") if "classes" not in name]
    return {
        "nameless": tar_of(folder / "nameless.tar", nameless),
        "escaping": tar_of(folder / "escaping.tar", [("../../evil", b"x")]),
        "empty": tar_of(folder / "empty.tar", [("readme.txt", b"x")]),
    }


# What is released, what is changed in the release, and what the Event says.
BAD = [
    ("swapped", {"sha256": "0" * 64}, "sha256"),
    ("swapped", {"size_bytes": 7}, "expected 7 bytes"),
    ("swapped", {"classes": ["dog", "cat"]}, "expected classes"),
    ("swapped", {"url": "gopher://example.org/model"}, "a scheme of"),
    ("nameless", {"classes": ["cat", "dog", "bird"]}, "class names"),
    ("escaping", {}, "plain files"),
    ("empty", {}, "saved_model.pb"),
    ("broken", {}, "failed its smoke test"),
    ("flat", {}, "shape"),
    ("refusing", {}, "known good image"),
]


async def test_g6_a_bad_release_never_stays_in_service(config, base, release, bundles, tmp_path):
    """Whatever is wrong with it, it goes by itself, the Event says why, and answers are as before."""
    async with station(config) as seen:
        async with asking(seen) as sent:
            for number, (kind, changes, why) in enumerate(BAD):
                await release(seen, (bundles | hostile(tmp_path))[kind], 2, **changes)
                event = await told(seen, "model.failed", number)
                assert why in event.reason
                assert event.facts["version"] == 2
                assert await label(seen, number) == ("cat", 1), why
                assert [path.name for path in base.iterdir()] == ["1"], why
        assert not [one for one in seen.events if one.event == "model.available"]
        assert {(one.label, one.model_version) for one in seen.final("asker").values()} == {("cat", 1)}
        assert len(sent) > len(BAD)
        await eventually(lambda: seen.newest().state == "online")


async def test_g6_a_version_that_a_killed_run_had_placed_is_tried_out_first(config, base, release, bundles):
    """It is the newest and served, but its verdict never came: the bad one goes, the one before is back."""
    place("flat", base, 2)
    async with station(config) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        await release(seen, bundles["flat"], 2)
        assert "shape" in (await told(seen, "model.failed")).reason
        assert [path.name for path in base.iterdir()] == ["1"]
        assert await label(seen, 1) == ("cat", 1)


async def test_g6_going_back_to_an_older_version_that_is_bad(config, base, release, bundles):
    """A bad older version leaves the newer one in service, which had stepped aside for it."""
    place("swapped", base, 5)
    async with station(config) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 5)
        await release(seen, bundles["broken"], 3)
        assert (await told(seen, "model.failed")).facts["version"] == 3
        assert await label(seen, 1) == ("dog", 5)
        await release(seen, bundles["straight"], 4)
        assert (await told(seen, "model.available")).facts["version"] == 4
        assert await label(seen, 2) == ("cat", 4)


async def test_g6_a_version_in_service_never_changes(config, release, bundles):
    """The same version with another digest or other class names is refused; the same again is no news."""
    good = bundles["swapped"]
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await release(seen, good, 2)
            await told(seen, "model.available")
            await release(seen, good, 2, sha256="0" * 64)
            assert "release the new bundle under a new version" in (await told(seen, "model.failed")).reason
            await release(seen, good, 2, classes=["dog", "cat"])
            assert "classes" in (await told(seen, "model.failed", 1)).reason
            assert await label(seen, 1) == ("dog", 2)
            await release(seen, good, 2)
        await seen.status("offline")
        async with edge_running(config):
            await seen.status("online")
            assert await label(seen, 2) == ("dog", 2)
        assert len([one for one in seen.events if one.event.startswith("model.")]) == 3


async def test_a_bad_release_that_is_said_again_fails_once(config, release, bundles):
    """Brokers and gateways repeat what lasts: what was refused is not fetched and told anew."""
    async with station(config) as seen:
        for _ in range(3):
            await release(seen, bundles["swapped"], 2, sha256="0" * 64)
        await release(seen, bundles["swapped"], 2)
        await told(seen, "model.available")
        assert len([one for one in seen.events if one.event == "model.failed"]) == 1


async def test_a_bundle_out_of_reach_is_fetched_when_it_is_back(config, release, bundles, tmp_path):
    """A source that is away is tried again, and a newer release need not wait for it."""
    late = tmp_path / "late.tar"
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2, url=late.as_uri())
        assert await label(seen, 1) == ("cat", 1)
        late.write_bytes(bundles["swapped"].read_bytes())
        assert (await told(seen, "model.available")).facts["version"] == 2
        await release(seen, bundles["straight"], 3, url=(tmp_path / "never.tar").as_uri())
        await release(seen, bundles["straight"], 4)
        assert (await told(seen, "model.available", 1)).facts["version"] == 4


async def test_a_release_for_another_model_is_refused(config, release, bundles):
    """What is for another model, or no release at all, is refused by an Event and changes nothing."""
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2, model="birds")
        assert f"this node serves model {config.model}" in (await told(seen, "model.refused")).reason
        await seen.bus.publish_bytes(RELEASE.name(node=NODE), b'{"v": 1}')
        assert "release" in (await told(seen, "model.refused", 1)).reason
        assert await label(seen, 1) == ("cat", 1)


async def test_without_a_models_folder_a_release_tells_the_class_names(config, release, bundles):
    """Where somebody else places the models, the release is what names their classes."""
    async with station(structs.replace(config, models_dir=None)) as seen:
        await seen.send(enveloped(1, photo(1)))
        await eventually(lambda: len(seen.results) == 1)
        assert "class names" in seen.results[0].reason
        await release(seen, bundles["straight"], 1, classes=["miez", "wau"])
        assert (await seen.answer(photo_id(1))).label == "miez"


async def test_g6_twenty_swaps_under_load_fail_no_request(config, release, bundles):
    """Twenty versions one after the other: each comes into service and every photo has its answer at once."""
    async with station(config) as seen, asking(seen) as sent:
        for number in range(20):
            kind = "straight" if number % 2 else "swapped"
            await release(seen, bundles[kind], number + 2)
            assert (await told(seen, "model.available", number)).facts["version"] == number + 2
    assert len(sent) > 20
    assert {result.status for result in seen.results} == {"ok"}
    said = {(one.label, one.model_version) for one in seen.results}
    assert said <= {("cat" if version % 2 else "dog", version) for version in range(1, 22)}
    assert not [one for one in seen.events if one.event == "model.failed"]
