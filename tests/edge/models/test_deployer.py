"""Releases end to end: a real broker, a real model server, and an edge that activates and rolls back."""

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
from tests.edge.mirror.test_mirror import mirroring
from tests.file_server import FileServer, dripping, web_server
from tests.nodes import NODE, Observer, edge_running, enveloped, photo, photo_id, station
from tests.serving import place, release_of, saved_models, tar_of


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch) -> None:
    """The model server of these tests reads its folder every 50 ms, so the edge waits less."""
    monkeypatch.setattr("edge.models.smoke_test.RESCAN_S", 1.0)


@pytest.fixture
def config(config, own_models) -> EdgeConfig:
    """An edge with a model that no other test uses, `straight` as version 1."""
    return structs.replace(config, model=next(own_models))


@pytest.fixture
def base(config) -> Path:
    """The version directories of that model."""
    return Path(config.models_dir) / config.model


@pytest.fixture
def release(config):
    """Return a function that releases a version of that model."""

    async def publish(seen: Observer, bundle: Path, version: int, **changes: object) -> None:
        facts = {"model": config.model} | changes
        await seen.bus.publish(RELEASE, release_of(bundle, version, **facts), node=NODE)

    return publish


async def nth_event(seen: Observer, event: str, number: int = 0) -> Event:
    """Wait for the n-th event of a kind."""

    def matching() -> list[Event]:
        return [one for one in seen.events if one.event == event]

    await eventually(lambda: len(matching()) > number)
    return matching()[number]


async def classify(seen: Observer, number: int) -> tuple[str, int]:
    """Send a red photo; return its label and the version that answered."""
    await seen.send(enveloped(number, photo(number, "red")))
    answer = await seen.answer(photo_id(number))
    return answer.label, answer.model_version


@asynccontextmanager
async def photos_sent(seen: Observer) -> AsyncIterator[list[int]]:
    """Send photos during a block; yields their numbers. All are answered at its end."""
    sent: list[int] = []

    async def send() -> None:
        while True:
            sent.append(1000 + len(sent))
            await seen.send(enveloped(sent[-1], photo(sent[-1], "red"), "sender"), "sender")
            await eventually(lambda: len(seen.final("sender")) > len(sent) - 4)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: len(seen.final("sender")) == len(sent))


async def test_g6_a_release_comes_into_service(config, release, bundles):
    """It is fetched, verified, activated and tested; then status and event name it, and it answers."""
    async with station(config) as seen:
        assert await classify(seen, 1) == ("cat", 1)
        await release(seen, bundles["swapped"], 2)
        event = await nth_event(seen, "model.available")
        assert event.facts["version"] == 2
        assert await classify(seen, 2) == ("dog", 2)
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        assert seen.newest().model.state == "available"
        size_bytes = bundles["swapped"].stat().st_size
        await eventually(lambda: seen.newest().counters["release.fetched_bytes"] == size_bytes)
        assert seen.newest().counters["release.reused_bytes"] == 0


def members(model: str) -> list[tuple[str, bytes]]:
    root = saved_models() / model
    return [(str(path.relative_to(root)), path.read_bytes()) for path in root.rglob("*") if path.is_file()]


def hostile(folder: Path) -> dict[str, Path]:
    """Return bundles that are not models, by name."""
    nameless = [(name, content) for name, content in members("swapped") if "classes" not in name]
    return {
        "nameless": tar_of(folder / "nameless.tar", nameless),
        "escaping": tar_of(folder / "escaping.tar", [("../../evil", b"x")]),
        "empty": tar_of(folder / "empty.tar", [("readme.txt", b"x")]),
    }


# Bundle, changes of the release, and the reason in the event.
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
    """Each kind of bad release is removed, an event has the reason, and the previous version answers."""
    async with station(config) as seen:
        async with photos_sent(seen) as sent:
            for number, (kind, changes, why) in enumerate(BAD):
                await release(seen, (bundles | hostile(tmp_path))[kind], 2, **changes)
                event = await nth_event(seen, "model.failed", number)
                assert why in event.reason
                assert event.facts["version"] == 2
                assert await classify(seen, number) == ("cat", 1), why
                assert [path.name for path in base.iterdir()] == ["1"], why
        assert not [one for one in seen.events if one.event == "model.available"]
        assert {(one.label, one.model_version) for one in seen.final("sender").values()} == {("cat", 1)}
        assert len(sent) > len(BAD)
        await eventually(lambda: seen.newest().state == "online")


async def test_g6_a_version_without_a_verdict_is_tested_first(config, base, release, bundles):
    """A served version without a record is tested; if bad, the previous one is restored."""
    place("flat", base, 2)
    async with station(config) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        await release(seen, bundles["flat"], 2)
        assert "shape" in (await nth_event(seen, "model.failed")).reason
        assert [path.name for path in base.iterdir()] == ["1"]
        assert await classify(seen, 1) == ("cat", 1)


async def test_g6_a_rollback_does_not_return_to_a_version_without_a_verdict(config, base, release, bundles):
    """A version that a killed run activated is removed before the next one, which may fail too."""
    place("flat", base, 2)
    (base / "2/.unproven").write_text("0" * 64)
    async with station(config) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        await release(seen, bundles["broken"], 3)
        assert (await nth_event(seen, "model.failed")).facts["version"] == 3
        assert [path.name for path in base.iterdir()] == ["1"]
        assert await classify(seen, 1) == ("cat", 1)


async def test_g6_a_bad_older_version_is_rolled_back(config, base, release, bundles):
    """The newer version, which stepped aside for it, is in service again."""
    place("swapped", base, 5)
    async with station(config) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 5)
        await release(seen, bundles["broken"], 3)
        assert (await nth_event(seen, "model.failed")).facts["version"] == 3
        assert await classify(seen, 1) == ("dog", 5)
        await release(seen, bundles["straight"], 4)
        assert (await nth_event(seen, "model.available")).facts["version"] == 4
        assert await classify(seen, 2) == ("cat", 4)


async def test_g6_a_version_in_service_never_changes(config, release, bundles):
    """The same version with another digest or other classes fails; the same release has no effect."""
    good = bundles["swapped"]
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await release(seen, good, 2)
            await nth_event(seen, "model.available")
            await release(seen, good, 2, sha256="0" * 64)
            assert (
                "release the new bundle under a new version" in (await nth_event(seen, "model.failed")).reason
            )
            await release(seen, good, 2, classes=["dog", "cat"])
            assert "classes" in (await nth_event(seen, "model.failed", 1)).reason
            assert await classify(seen, 1) == ("dog", 2)
            await release(seen, good, 2)
        await seen.status("offline")
        async with edge_running(config):
            await seen.status("online")
            assert await classify(seen, 2) == ("dog", 2)
        assert len([one for one in seen.events if one.event.startswith("model.")]) == 3


async def test_a_repeated_bad_release_fails_once(config, release, bundles):
    """Brokers and gateways repeat retained messages; the release is not fetched and reported again."""
    async with station(config) as seen:
        for _ in range(3):
            await release(seen, bundles["swapped"], 2, sha256="0" * 64)
        await release(seen, bundles["swapped"], 2)
        await nth_event(seen, "model.available")
        assert len([one for one in seen.events if one.event == "model.failed"]) == 1


async def test_an_unreachable_bundle_is_fetched_later(config, release, bundles, tmp_path):
    """The download is retried, and a newer release does not wait for it."""
    late = tmp_path / "late.tar"
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2, url=late.as_uri())
        assert await classify(seen, 1) == ("cat", 1)
        late.write_bytes(bundles["swapped"].read_bytes())
        assert (await nth_event(seen, "model.available")).facts["version"] == 2
        await release(seen, bundles["straight"], 3, url=(tmp_path / "never.tar").as_uri())
        await release(seen, bundles["straight"], 4)
        assert (await nth_event(seen, "model.available", 1)).facts["version"] == 4


async def test_a_release_comes_from_the_mirror(config, release, bundles, tmp_path):
    """An edge with a mirror fetches bundles there, and the mirror those from the origin."""
    origin, bundle = FileServer(bundles["swapped"].parent), bundles["swapped"]
    async with (
        web_server(origin.answer) as address,
        mirroring(tmp_path / "mirror", address) as mirror,
        station(structs.replace(config, mirror=mirror)) as seen,
    ):
        await release(seen, bundle, 2, url=f"{address}/{bundle.name}")
        assert (await nth_event(seen, "model.available")).facts["version"] == 2
    assert [path.suffix for path in (tmp_path / "mirror").iterdir()] == [".tar"]
    assert origin.sent_bytes == bundle.stat().st_size


async def test_a_release_for_another_model_is_refused(config, release, bundles):
    """A release for another model, or a malformed one, is refused with an event and changes nothing."""
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2, model="birds")
        assert f"this node serves model {config.model}" in (await nth_event(seen, "model.refused")).reason
        await seen.bus.publish_bytes(RELEASE.name(node=NODE), b'{"v": 1}')
        assert "release" in (await nth_event(seen, "model.refused", 1)).reason
        assert await classify(seen, 1) == ("cat", 1)


async def test_without_models_dir_a_release_provides_the_class_names(config, release, bundles):
    """Where others place the models, only the release names their classes."""
    async with station(structs.replace(config, models_dir=None)) as seen:
        await seen.send(enveloped(1, photo(1)))
        await eventually(lambda: len(seen.results) == 1)
        assert "class names" in seen.results[0].reason
        await release(seen, bundles["straight"], 1, classes=["miez", "wau"])
        assert (await seen.answer(photo_id(1))).label == "miez"


async def test_g6_twenty_swaps_under_load_fail_no_request(config, release, bundles):
    """Twenty versions in a row come into service, and no photo is deferred."""
    async with station(config) as seen, photos_sent(seen) as sent:
        for number in range(20):
            kind = "straight" if number % 2 else "swapped"
            await release(seen, bundles[kind], number + 2)
            assert (await nth_event(seen, "model.available", number)).facts["version"] == number + 2
    assert len(sent) > 20
    assert {result.status for result in seen.results} == {"ok"}
    answers = {(one.label, one.model_version) for one in seen.results}
    assert answers <= {("cat" if version % 2 else "dog", version) for version in range(1, 22)}
    assert not [one for one in seen.events if one.event == "model.failed"]


async def test_a_slow_source_does_not_hold_up_a_newer_release(config, release, bundles):
    """While a bundle drips in, a newer release is begun at once."""
    async with dripping() as url, station(config) as seen:
        await release(seen, bundles["straight"], 2, url=url)
        await eventually(lambda: seen.newest().model is not None)
        await release(seen, bundles["swapped"], 3)
        assert (await nth_event(seen, "model.available")).facts["version"] == 3


async def test_an_edge_without_models_dir_tells_why_a_release_is_not_served(config, release, bundles):
    """Event and Status name what to configure; they change once somebody places the version."""
    config = structs.replace(config, models_dir=None)
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2)
        event = await nth_event(seen, "model.delayed")
        assert "models_dir is not configured" in event.reason
        await eventually(lambda: "models_dir" in (seen.newest().reason or ""))


async def test_a_models_dir_that_cannot_be_written_is_reported(config, release, bundles, tmp_path):
    """Event and Status have the folder's fault, and do not blame the bundle's source."""
    (tmp_path / "file").touch()
    config = structs.replace(config, models_dir=str(tmp_path / "file/models"))
    async with station(config) as seen:
        await release(seen, bundles["swapped"], 2)
        event = await nth_event(seen, "model.delayed")
        assert "cannot write" in event.reason
        assert "download" not in event.reason
        await eventually(lambda: "cannot write" in (seen.newest().reason or ""))
