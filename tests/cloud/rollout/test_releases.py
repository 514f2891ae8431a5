"""Rules of cloud/rollout/releases.py: the content of a release, and when it is served."""

import asyncio
import hashlib

import pytest
from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from cloud.registry.registry import read_bundle
from cloud.rollout.releases import LATEST_MS, Announcer, later_than, release_of
from schemas.errors import PermanentError
from schemas.messages import Event, ServedModel
from schemas.topics import EVENT, RELEASE, STATUS
from tests.cloud.bundles import CLASSES, bundle
from tests.conftest import DEADLINE_S, running


class Node:
    """An edge node that reports what it serves."""

    def __init__(self, address, name: str) -> None:
        self.name = name
        self.bus = Bus(address, transient_client_id(name), presence=Presence(name, "edge"))
        self.releases = self.bus.subscribe(RELEASE, node=name)

    async def serves(self, version: int, state: str = "available") -> None:
        await self.bus.report(model=ServedModel(name="pets", version=version, state=state))

    async def says(self, event: str, reason: str, **facts: int) -> None:
        message = Event(node=self.name, name="edge", event=event, at_ms=1, reason=reason, facts=facts)
        await self.bus.publish(EVENT, message, node=self.name, name="edge")


@pytest.fixture
def release(tmp_path):
    return lambda node, version=2: release_of(read_bundle(bundle(tmp_path, version)), node, "pets")


def test_a_release_describes_its_bundle(tmp_path):
    """Digest, size, classes and version are those of the file; its path is the default URL."""
    path = bundle(tmp_path, 7)
    message = release_of(read_bundle(path), "edge-1", "pets")
    assert message.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (message.size_bytes, message.version, message.classes) == (path.stat().st_size, 7, CLASSES)
    assert message.temperature == 1.5
    assert message.url == path.as_uri()
    assert release_of(read_bundle(path), "edge-1", "pets", "s3://models/7.tar").url == "s3://models/7.tar"


def test_what_is_no_bundle_is_one_sentence(tmp_path):
    """What is wrong with a missing file, a folder and a file that is not a tar is reported in one line."""
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    wrong = {
        "none.tar": "No such file or directory$",
        "junk.tar": "expected a tar with assets.extra/model.json$",
        "": "Is a directory$",
    }
    for name, reason in wrong.items():
        with pytest.raises(PermanentError, match=reason) as refusal:
            read_bundle(tmp_path / name)
        assert "\n" not in str(refusal.value)


async def test_a_release_is_retained_for_offline_nodes(address, release):
    """A node that connects later gets it."""
    sender = Bus(address, transient_client_id("sender"))
    announcer = Announcer(sender, ["edge-1"])
    async with running(sender):
        await announcer.announce([release("edge-1")])
    node = Node(address, "edge-1")
    async with running(node.bus), asyncio.timeout(DEADLINE_S):
        delivery = await node.releases.queue.get()
        assert (delivery.retained, delivery.message().version) == (True, 2)


async def test_a_release_is_later_than_the_retained_one(address, release):
    """Independent of this machine's clock: after one from the future, the next continues from its time."""
    ahead = 4_000_000_000_000
    for expected in (ahead + 1, ahead + 2):
        sender = Bus(address, transient_client_id("sender"))
        announcer = Announcer(sender, ["edge-1"])
        async with running(sender):
            if expected == ahead + 1:
                future = structs.replace(release("edge-1"), released_at_ms=ahead)
                await sender.publish(RELEASE, future, node="edge-1")
                (await announcer._echoes.queue.get()).ack()
        again = Bus(address, transient_client_id("sender"))
        announcer, node = Announcer(again, ["edge-1"]), Node(address, "edge-1")
        async with running(again):
            await announcer.announce([release("edge-1")])
        async with running(node.bus):
            assert (await node.releases.queue.get()).message().released_at_ms == expected


def test_the_latest_time_of_all_cannot_be_followed(release):
    """The error has the command that removes the retained release."""
    latest = structs.replace(release("edge-1"), released_at_ms=LATEST_MS)
    with pytest.raises(PermanentError, match=r"mosquitto_pub -r -n -t gleaner/v1/release/edge-1"):
        later_than(release("edge-1"), latest)


async def test_served_yields_each_node_as_it_serves(address, release):
    """In the order of their reports; a version that is loading and older versions do not count."""
    one, two, other = (Node(address, name) for name in ("edge-1", "edge-2", "edge-3"))
    sender = Bus(address, transient_client_id("sender"))
    announcer = Announcer(sender, ["edge-1", "edge-2", "edge-1"])
    async with running(sender, one.bus, two.bus, other.bus), asyncio.timeout(DEADLINE_S):
        await announcer.announce([release(name) for name in ("edge-1", "edge-2")])
        served = announcer.served(2)
        await other.serves(2)
        await one.serves(1)
        await one.serves(2, "loading")
        await one.bus.publish_bytes(STATUS.name(node="edge-1", name="edge"), b"{}")
        await two.serves(2)
        assert await anext(served) == "edge-2"
        await one.says("model.available", "as it should be", version=2)
        await one.serves(2)
        assert [node async for node in served] == ["edge-1"]


async def test_a_node_that_served_it_before_counts(address, release):
    """Its retained status answers a release that is sent again."""
    node, sender = Node(address, "edge-1"), Bus(address, transient_client_id("sender"))
    async with running(node.bus):
        await node.serves(2)
        announcer = Announcer(sender, ["edge-1"])
        async with running(sender), asyncio.timeout(DEADLINE_S):
            await announcer.announce([release("edge-1")])
            assert [name async for name in announcer.served(2)] == ["edge-1"]


async def test_a_degraded_node_that_names_no_bundle_does_not_count(address, release):
    """What its model server has is not what it can use: it cannot write the models, or names no classes."""
    node, sender = Node(address, "edge-1"), Bus(address, transient_client_id("sender"))
    announcer = Announcer(sender, ["edge-1"])
    async with running(sender, node.bus), asyncio.timeout(DEADLINE_S):
        await announcer.announce([release("edge-1")])
        await node.bus.report_degraded("models", "the models cannot be written")
        await node.serves(2)
        served = asyncio.ensure_future(anext(announcer.served(2)))
        while "written, and serves pets 2" not in announcer.last_heard("edge-1"):
            await asyncio.wait([served], timeout=0.01)
        assert not served.done()
        await node.bus.report_recovered("models")
        assert await served == "edge-1"


@pytest.mark.parametrize(("event", "facts"), [("model.failed", {"version": 2}), ("model.refused", {})])
async def test_g6_a_node_that_cannot_serve_it_ends_the_wait(address, release, event, facts):
    """The error has the node's reason; failures of other versions are ignored."""
    node, sender = Node(address, "edge-1"), Bus(address, transient_client_id("sender"))
    announcer = Announcer(sender, ["edge-1"])
    async with running(sender, node.bus), asyncio.timeout(DEADLINE_S):
        await announcer.announce([release("edge-1")])
        await node.says("model.failed", "that was last week", version=1)
        await node.says(event, "digest differs", **facts)
        with pytest.raises(PermanentError, match="node edge-1 cannot serve version 2: digest differs"):
            assert [name async for name in announcer.served(2)] == []
