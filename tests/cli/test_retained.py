"""Commands that know the nodes: release, policy and retire."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import now_ms
from schemas.codec import decode, encode
from schemas.messages import Policy, ServedModel, Status
from schemas.policy_rules import HarvestRules
from schemas.topics import POLICY, RELEASE, ROOT, STATUS, find
from tests.cli.conftest import gleaner
from tests.cli.test_cloud import bundle
from tests.conftest import DEADLINE_S, eventually

OTHER = "f" * 64


@asynccontextmanager
async def broker_of(address):
    """Yield a connected client and what each topic holds, empty messages included."""
    bus = Bus(address, transient_client_id("observer"))
    received = bus.subscribe_raw(f"{ROOT}/#")
    held: dict[str, bytes] = {}

    async def follow() -> None:
        while True:
            message = await received.get()
            held[message.topic] = message.payload

    tasks = [asyncio.create_task(work) for work in (bus.run(), follow())]
    async with asyncio.timeout(DEADLINE_S):
        await bus.connected()
    yield bus, held
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def report(bus: Bus, node: str, name: str = "edge", **fields: object) -> None:
    """Retain a status."""
    status = Status(
        **{"node": node, "name": name, "state": "online", "at_ms": now_ms(), "since_ms": 1, "software": "1"}
        | {"run_id": "1"}
        | fields
    )
    await bus.publish_bytes(STATUS.name(node=node, name=name), encode(STATUS, status), retain=True)


async def test_a_node_that_never_reported_is_refused(address, at, tmp_path):
    """A misspelt node gets no retained message; the error suggests the one that was meant."""
    async with broker_of(address) as (bus, held):
        await report(bus, "edge-1")
        words = ("cloud", "release", bundle(tmp_path, 2), "--nodes", "edge-11", *at)
        done = await gleaner(*words)
        assert done.code == 1
        assert "no node edge-11 has reported" in done.sentence
        assert "did you mean 'edge-1'?" in done.sentence
        done = await gleaner("cloud", "policy", "--nodes", "edge-nope", "--auto", "off", *at)
        assert done.code == 1
        assert "no node edge-nope has reported" in done.sentence
        assert not [topic for topic in held if topic.startswith((f"{ROOT}/release", f"{ROOT}/policy"))]
        assert (await gleaner(*words, "--any-node")).code == 0
        await eventually(lambda: RELEASE.name(node="edge-11") in held)


async def test_another_bundle_of_the_same_number_is_no_success(address, at, tmp_path):
    """A node that serves another bundle as this version is named, with what it serves."""
    async with broker_of(address) as (bus, _):
        model = ServedModel(name="pets", version=2, state="available", sha256=OTHER)
        await report(bus, "edge-1", model=model)
        done = await gleaner("cloud", "release", bundle(tmp_path, 2), "--wait", "0.5", *at)
    assert done.code == 75
    assert "edge-1 did not report version 2 within 0.5 s" in done.sentence
    assert f"another bundle (sha256 {OTHER[:12]})" in done.sentence


async def test_a_status_from_before_the_release_is_no_success(address, at, tmp_path):
    """A node that does not report digests must report again after the release."""
    async with broker_of(address) as (bus, _):
        await report(bus, "edge-1", model=ServedModel(name="pets", version=2, state="available"))
        done = await gleaner("cloud", "release", bundle(tmp_path, 2), "--wait", "0.5", *at)
    assert done.code == 75
    assert "as reported before the release" in done.sentence


async def test_a_url_has_the_version_filled_in(address, at, tmp_path):
    """`{version}` in a URL is the number of the released version."""
    url = "https://models.example/pets/{version}.tar"
    async with broker_of(address) as (_, held):
        assert (await gleaner("cloud", "release", bundle(tmp_path, 7), "--url", url, *at)).code == 0
        topic, names = find(RELEASE.name(node="edge-1"))
        await eventually(lambda: RELEASE.name(node="edge-1") in held)
        released = decode(topic, held[RELEASE.name(node="edge-1")], names)
    assert released.url == "https://models.example/pets/7.tar"


async def test_a_cleared_policy_is_gone_from_the_broker(address, at):
    """`--clear` removes the retained policy, so that the node uses its own rules."""
    policy = Policy(node="edge-1", harvest=HarvestRules(auto=False))
    async with broker_of(address) as (bus, held):
        await bus.publish(POLICY, policy, node="edge-1")
        done = await gleaner("cloud", "policy", "--clear", *at)
        assert (done.code, done.err) == (0, "")
        await eventually(lambda: held.get(POLICY.name(node="edge-1")) == b"")
    async with broker_of(address) as (_, held):
        assert POLICY.name(node="edge-1") not in held


async def test_a_retired_node_is_gone_from_the_broker(address, at):
    """Statuses of all its components, its policy and its release are cleared; other nodes keep theirs."""
    async with broker_of(address) as (bus, _):
        for node, name in (("edge-1", "edge"), ("edge-1", "pi-1"), ("edge-2", "edge")):
            await report(bus, node, name, state="offline")
        await bus.publish(POLICY, Policy(node="edge-1"), node="edge-1")
        assert (await gleaner("cloud", "retire", "edge-1", *at)).code == 0
    async with broker_of(address) as (_, held):
        await eventually(lambda: held)
        assert set(held) == {STATUS.name(node="edge-2", name="edge")}


@pytest.mark.parametrize("target", ["edge-1", "edge-1.pi-1"])
async def test_what_is_in_service_is_not_retired(address, at, target):
    """A component that reported within the last minute needs --force; an unknown one is an error."""
    async with broker_of(address) as (bus, _):
        await report(bus, "edge-1", "pi-1")
        done = await gleaner("cloud", "retire", target, *at)
        assert done.code == 1
        assert "is in service (pi-1)" in done.sentence
        assert (await gleaner("cloud", "retire", "edge-3", *at)).code == 1
        assert (await gleaner("cloud", "retire", target, "--force", *at)).code == 0


async def test_status_is_1_when_something_is_wrong(address, at, tmp_path):
    """Devices and cloud components are listed too; one that is offline makes the exit code 1."""
    words = ("cloud", "status", "--models", tmp_path, "--dataset", tmp_path / "none", *at)
    async with broker_of(address) as (bus, _):
        await report(bus, "edge-1", model=ServedModel(name="pets", version=2, state="available"))
        await report(bus, "edge-1", "pi-1")
        done = await gleaner(*words)
        assert done.code == 0, done.out
        assert "pi-1" in done.out
        await report(bus, "cloud", "collector", state="offline", reason="it was stopped")
        done = await gleaner(*words)
        assert done.code == 1
        assert "it was stopped" in done.out
