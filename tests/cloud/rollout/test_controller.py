import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence, now_ms
from cloud.evaluation.audit_stats import Audits
from cloud.rollout.canary_analysis import Rules
from cloud.rollout.controller import Controller, alone, read, write
from cloud.rollout.releases import read_bundle, release_of
from cloud.rollout.state_machine import Rollout, Step
from schemas.errors import PermanentError, TransientError
from schemas.messages import CanaryReport, Event, Release, ServedModel, VersionStats
from schemas.topics import CLOUD, EVENT, RELEASE
from tests.cloud.bundles import bundle
from tests.cloud.judging import audit
from tests.conftest import eventually, running
from tests.nodes import Command, Observer

STEPS = [Step("shadow", photos=10), Step("canary", 0.5, 10), Step("all")]
RULES = Rules(stage_s=0, watch_s=0, patience_s=30)


@pytest.fixture(autouse=True)
def watchful(monkeypatch) -> None:
    """These controllers look more often than others."""
    monkeypatch.setattr("cloud.rollout.controller._LOOK_S", 0.1)


class Node:
    """An edge that takes what it is told, and says of its trial what a test wants."""

    def __init__(self, address, name: str) -> None:
        self.name = name
        self.bus = Bus(address, transient_client_id(name), presence=Presence(name, "edge"))
        self.releases: list[Release] = []
        self._source = self.bus.subscribe(RELEASE, node=name)

    async def run(self) -> None:
        async for delivery in self._source:
            delivery.ack()
            self.releases.append(delivery.message())

    @property
    def told(self) -> list[tuple[int, str]]:
        return [(release.version, release.stage) for release in self.releases]

    async def hears(self, version: int, stage: str) -> None:
        await eventually(lambda: bool(self.told) and self.told[-1] == (version, stage), within_s=40)

    async def tries(self, photos: int = 100, *, disagreed: int = 0) -> None:
        """Say how the trial goes that it heard of last."""
        release = self.releases[-1]
        trial = CanaryReport(
            stage=release.stage,
            champion=VersionStats(version=release.baseline, answered=photos, p95_ms=5.0),
            challenger=VersionStats(version=release.version, answered=photos, p95_ms=5.0),
            compared=photos,
            disagreed=disagreed,
            since_ms=release.released_at_ms,
        )
        await self.bus.report(canary=trial)

    async def serves(self, version: int, **did: object) -> None:
        model = ServedModel(name="pets", version=version, state="available")
        await self.bus.report(canary=None, model=model, serving=VersionStats(version=version, **did))

    async def says(self, event: str, reason: str) -> None:
        message = Event(
            node=self.name, name="edge", event=event, at_ms=1, reason=reason, facts={"version": 2}
        )
        await self.bus.publish(EVENT, message, node=self.name, name="edge")


@asynccontextmanager
async def nodes(address, *names: str) -> AsyncIterator[list[Node]]:
    there = [Node(address, name) for name in names]
    async with running(*(node.bus for node in there)):
        listening = [asyncio.create_task(node.run()) for node in there]
        yield there
        for task in listening:
            task.cancel()


@pytest.fixture
def begun(tmp_path):
    """A function that writes the file of a rollout of version 2 over 1."""

    def begin(*groups: list[str], **changes: object) -> Path:
        one, two = (
            release_of(read_bundle(bundle(tmp_path, version)), groups[0][0], "pets") for version in (1, 2)
        )
        state = Rollout(
            champion=one, challenger=two, groups=list(groups), steps=STEPS, rules=RULES, since_ms=1000
        )
        path = tmp_path / "rollout-2.json"
        write(path, structs.replace(state, **changes))
        return path

    return begin


@asynccontextmanager
async def controlling(address, path: Path, audits=lambda _: Audits()) -> AsyncIterator[asyncio.Task[Rollout]]:
    """Run a controller; the block waits for what it needs, and the controller ends with it at the latest."""
    bus = Bus(address, "gleaner-cloud-rollout", presence=Presence(CLOUD, "rollout"))
    controller = Controller(bus, path, sign=lambda release: release, audits=audits)
    async with running(bus):
        task = asyncio.create_task(controller.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_version_goes_out_group_by_group(address, begun):
    """Each release says stage, share and what serves beside it; Events and the Status tell how it goes."""
    path = begun(["edge-1"], ["edge-2"])
    async with Observer(address).watching() as seen, nodes(address, "edge-1", "edge-2") as (one, two):
        async with controlling(address, path) as task, asyncio.timeout(30):
            for node in (one, two):
                for stage in ("shadow", "canary"):
                    await node.hears(2, stage)
                    assert node.releases[-1].baseline == 1
                    await node.tries()
                assert node.releases[-1].share == 0.5
                await node.hears(2, "all")
                assert node.releases[-1].baseline is None
                if node is one:
                    assert two.releases == []
                await node.serves(2)
            assert (await task).phase == "finished"
        kinds = [event.event for event in seen.events]
        assert kinds == ["rollout.stage"] * 6 + ["rollout.finished"]
        assert seen.events[1].facts["stage"] == "canary"
        assert seen.events[1].facts["compared"] == 100
        assert {event.name for event in seen.events} == {"rollout"}
        assert any(
            status.canary and status.canary.compared for status in seen.statuses if status.node == CLOUD
        )
    assert read(path).over


NONE, POOR = Audits(), Audits(audit(100, 50), audit(100, 99))
BAD = [
    (lambda node: node.tries(disagreed=100), NONE, "labels 100 of 100 photos otherwise"),
    (lambda node: node.says("model.failed", "no memory"), NONE, "edge-1 cannot serve it: no memory"),
    (lambda node: node.tries(0), POOR, "audits find 50 of 100"),
]


@pytest.mark.parametrize(("misbehave", "audits", "why"), BAD)
async def test_g6_a_bad_version_goes_back_from_every_node_that_heard_of_it(
    address, begun, misbehave, audits, why
):
    """The champion is released to all of them, and Event and file say why."""
    path = begun(["edge-1"], ["edge-2"], ["edge-3"], group=1)
    names = ("edge-1", "edge-2", "edge-3")
    async with Observer(address).watching() as seen, nodes(address, *names) as (one, two, three):
        async with controlling(address, path, lambda _: audits) as task, asyncio.timeout(30):
            if audits is NONE:
                await two.hears(2, "shadow")
                await misbehave(one if "edge-1" in why else two)
            ended = await task
            for node in (one, two):
                await node.hears(1, "all")
        assert (ended.phase, three.releases) == ("returned", [])
        assert why in ended.reason
        await eventually(lambda: seen.events[-1].event == "rollout.returned")
        assert why in seen.events[-1].reason
        assert ended.facts.items() <= seen.events[-1].facts.items(), "no figure takes another's name"


async def test_a_node_that_refuses_sits_out_until_the_end(address, begun):
    """The others go on without it, and it gets the version with the last stage."""
    path = begun(["edge-1", "edge-2"])
    async with (
        nodes(address, "edge-1", "edge-2") as (one, two),
        controlling(address, path) as task,
        asyncio.timeout(30),
    ):
        await two.hears(2, "shadow")
        await two.says("model.refused", "expected version 1 in service, got 5")
        await one.tries()
        await one.hears(2, "canary")
        await one.tries()
        await one.hears(2, "all")
        assert two.told == [(2, "shadow")]
        await one.serves(2)
        assert (await task).passed_over == ["edge-2"]
        await two.hears(2, "all")


async def test_an_end_that_nobody_heard_of_is_told_again(address, begun):
    """A controller that was killed between deciding and telling tells it when it starts anew."""
    path = begun(["edge-1"], phase="returned", reason="it was bad")
    async with nodes(address, "edge-1") as (node,), controlling(address, path) as task:
        assert (await task).phase == "returned"
        await node.hears(1, "all")
    assert read(path).over


async def test_g6_what_turns_bad_after_the_last_stage_goes_back(address, begun):
    """A controller that was killed while it watched watches on."""
    path = begun(["edge-1"], step=2, since_ms=now_ms(), rules=structs.replace(RULES, watch_s=600))
    async with nodes(address, "edge-1") as (node,), asyncio.timeout(30):
        async with controlling(address, path):
            await node.hears(2, "all")
            await node.serves(2, answered=40)
        assert read(path).phase == "running"
        async with controlling(address, path) as task:
            await node.serves(2, answered=40, failed=20)
            assert "it failed 20 of 60 calls" in (await task).reason
            await node.hears(1, "all")
    assert read(path).phase == "returned"


async def test_g6_nothing_is_decided_before_the_audits_are_read(address, begun):
    """A controller that is started anew when the watch is over asks people's labels first."""
    path, told = begun(["edge-1"], step=2), threading.Event()

    def audits(_: Rollout) -> Audits:
        assert told.wait(20)
        return POOR

    async with nodes(address, "edge-1") as (node,), asyncio.timeout(30):
        await node.serves(2, answered=40)
        async with controlling(address, path, audits) as task:
            await node.hears(2, "all")
            told.set()
            assert (await task).phase == "returned"


@pytest.mark.slow
async def test_a_controller_that_is_killed_at_each_stage_goes_on(address, begun, tmp_path):
    """With kill -9 in shadow, canary and all: no stage is said twice to a node that is at it, or left out."""
    path = begun(["edge-1"])
    words = (
        "rollout",
        str(tmp_path / "2.tar"),
        "--broker",
        f"127.0.0.1:{address.port}",
        "--stage-s",
        "0",
        "--watch-s",
        "0",
    )
    command = Command(tmp_path, "cloud", *words, "--dataset", str(tmp_path / "none"))
    async with nodes(address, "edge-1") as (node,):
        try:
            command.start()
            for stage in ("shadow", "canary", "all"):
                await node.hears(2, stage)
                if stage != "all":
                    await node.tries(0)
                command.kill()
                command.start()
                await (node.serves(2) if stage == "all" else node.tries())
            assert await asyncio.to_thread(command.wait) == 0
        finally:
            command.kill()
        assert [stage for _, stage in node.told][:3] == ["shadow", "canary", "all"]
        assert read(path).phase == "finished"


def test_two_rollouts_are_never_under_way(tmp_path):
    """Of one version or of two: who is second is told who is first, and when that one is gone it is free."""
    two, three = (tmp_path / f"rollout-{version}.json" for version in (2, 3))
    with alone(two):
        for path in (two, three):
            first = rf"{path.stem}: expected no rollout under way, got rollout-2 \(process {os.getpid()}\)$"
            with pytest.raises(TransientError, match=first), alone(path):
                pass
    with alone(three), pytest.raises(TransientError, match="got rollout-3"), alone(two):
        pass


def test_a_file_that_is_no_rollout_is_one_sentence(tmp_path):
    """It is neither overwritten nor taken for a new rollout."""
    path = tmp_path / "rollout-2.json"
    assert read(path) is None
    path.write_text("{}")
    with pytest.raises(PermanentError, match="expected a rollout's state"):
        read(path)
