"""Rules of cloud/rollout/controller.py: what nodes are sent, and that a restart continues."""

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
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.registry import Registry, read_bundle
from cloud.registry.rollout_state import Rollout, RolloutFile, Rules, Step
from cloud.rollout.controller import Controller
from cloud.rollout.releases import release_of
from schemas.errors import PermanentError, TransientError
from schemas.messages import CanaryReport, Event, Release, ServedModel, VersionStats
from schemas.topics import CLOUD, EVENT, RELEASE
from tests.cloud.bundles import bundle
from tests.cloud.judging import audit
from tests.conftest import DEADLINE_S, eventually, running
from tests.nodes import Command, Observer

STEPS = [Step("shadow", photos=10), Step("canary", 0.5, 10), Step("all")]
RULES = Rules(stage_s=0, bake_time_s=0, node_timeout_s=30)


@pytest.fixture(autouse=True)
def short_poll(monkeypatch) -> None:
    """Make the controllers poll more often."""
    monkeypatch.setattr("cloud.rollout.controller._POLL_S", 0.1)


class Node:
    """An edge that records its releases, and reports what a test wants."""

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
    def received(self) -> list[tuple[int, str]]:
        return [(release.version, release.stage) for release in self.releases]

    async def expect_release(self, version: int, stage: str) -> None:
        await eventually(lambda: bool(self.received) and self.received[-1] == (version, stage))

    async def report_canary(self, photos: int = 100, *, disagreed: int = 0) -> None:
        """Publish a canary report for the newest release."""
        release = self.releases[-1]
        report = CanaryReport(
            stage=release.stage,
            champion=VersionStats(version=release.baseline, answered=photos, p95_ms=5.0),
            challenger=VersionStats(version=release.version, answered=photos, p95_ms=5.0),
            compared=photos,
            disagreed=disagreed,
            since_ms=release.released_at_ms,
        )
        await self.bus.report(canary=report)

    async def report_serving(self, version: int, **did: object) -> None:
        model = ServedModel(name="pets", version=version, state="available")
        await self.bus.report(canary=None, model=model, serving=VersionStats(version=version, **did))

    async def publish_event(self, event: str, reason: str) -> None:
        message = Event(
            node=self.name, name="edge", event=event, at_ms=1, reason=reason, facts={"version": 2}
        )
        await self.bus.publish(EVENT, message, node=self.name, name="edge")


@asynccontextmanager
async def nodes(address, *names: str) -> AsyncIterator[list[Node]]:
    fleet = [Node(address, name) for name in names]
    async with running(*(node.bus for node in fleet)):
        tasks = [asyncio.create_task(node.run()) for node in fleet]
        yield fleet
        for task in tasks:
            task.cancel()


@pytest.fixture
def begun(tmp_path):
    """Return a function that writes the state file of a rollout of version 2 over 1."""

    def begin(*groups: list[str], **changes: object) -> Path:
        one, two = (
            release_of(read_bundle(bundle(tmp_path, version)), groups[0][0], "pets") for version in (1, 2)
        )
        state = Rollout(
            champion=one, challenger=two, groups=list(groups), steps=STEPS, rules=RULES, since_ms=1000
        )
        path = tmp_path / "rollout-2.json"
        RolloutFile(path).write(structs.replace(state, **changes))
        return path

    return begin


@asynccontextmanager
async def controlling(
    address, path: Path, audits=lambda _: RolloutAudits()
) -> AsyncIterator[asyncio.Task[Rollout]]:
    """Run a controller until it ends, at the latest until the end of the block."""
    bus = Bus(address, "gleaner-cloud-rollout", presence=Presence(CLOUD, "rollout"))
    controller = Controller(bus, RolloutFile(path), sign=lambda release: release, audits=audits)
    async with running(bus):
        task = asyncio.create_task(controller.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_version_is_rolled_out_group_by_group(address, begun):
    """Each release has stage, share and baseline; Events and the Status report the progress."""
    path = begun(["edge-1"], ["edge-2"])
    async with Observer(address).watching() as seen, nodes(address, "edge-1", "edge-2") as (one, two):
        async with controlling(address, path) as task, asyncio.timeout(DEADLINE_S):
            for node in (one, two):
                for stage in ("shadow", "canary"):
                    await node.expect_release(2, stage)
                    assert node.releases[-1].baseline == 1
                    await node.report_canary()
                assert node.releases[-1].share == 0.5
                await node.expect_release(2, "all")
                assert node.releases[-1].baseline is None
                if node is one:
                    assert two.releases == []
                await node.report_serving(2)
            assert (await task).phase == "finished"
        kinds = [event.event for event in seen.events]
        assert kinds == ["rollout.stage"] * 6 + ["rollout.finished"]
        assert seen.events[1].facts["stage"] == "canary"
        assert seen.events[1].facts["compared"] == 100
        assert {event.name for event in seen.events} == {"rollout"}
        assert any(
            status.canary and status.canary.compared for status in seen.statuses if status.node == CLOUD
        )
    assert RolloutFile(path).read().announced


NONE, POOR = RolloutAudits(), RolloutAudits(audit(100, 50), audit(100, 99))
BAD = [
    (lambda node: node.report_canary(disagreed=100), NONE, "labels 100 of 100 photos otherwise"),
    (lambda node: node.publish_event("model.failed", "no memory"), NONE, "edge-1 cannot serve it: no memory"),
    (lambda node: node.report_canary(0), POOR, "audits find 50 of 100"),
]


@pytest.mark.parametrize(("fail_node", "audits", "why"), BAD)
async def test_g6_a_bad_version_is_rolled_back_on_every_reached_node(address, begun, fail_node, audits, why):
    """The champion is released to all of them, and Event and file have the reason."""
    path = begun(["edge-1"], ["edge-2"], ["edge-3"], group=1)
    names = ("edge-1", "edge-2", "edge-3")
    async with Observer(address).watching() as seen, nodes(address, *names) as (one, two, three):
        async with controlling(address, path, lambda _: audits) as task, asyncio.timeout(DEADLINE_S):
            if audits is NONE:
                await two.expect_release(2, "shadow")
                await fail_node(one if "edge-1" in why else two)
            ended = await task
            for node in (one, two):
                await node.expect_release(1, "all")
        assert (ended.phase, three.releases) == ("returned", [])
        assert why in ended.reason
        await eventually(lambda: seen.events[-1].event == "rollout.returned")
        assert why in seen.events[-1].reason
        assert ended.facts.items() <= seen.events[-1].facts.items(), "no figure takes another's name"


async def test_a_node_that_refuses_is_skipped_until_the_end(address, begun):
    """The others continue without it, and it gets the version when the rollout is finished."""
    path = begun(["edge-1", "edge-2"])
    async with (
        nodes(address, "edge-1", "edge-2") as (one, two),
        controlling(address, path) as task,
        asyncio.timeout(DEADLINE_S),
    ):
        await two.expect_release(2, "shadow")
        await two.publish_event("model.refused", "expected version 1 in service, got 5")
        await one.report_canary()
        await one.expect_release(2, "canary")
        await one.report_canary()
        await one.expect_release(2, "all")
        assert two.received == [(2, "shadow")]
        await one.report_serving(2)
        assert (await task).skipped == ["edge-2"]
        await two.expect_release(2, "all")


async def test_an_outcome_that_was_not_announced_is_announced_after_a_restart(address, begun):
    """For a controller that was killed after the decision was saved and before it was published."""
    path = begun(["edge-1"], phase="returned", reason="it was bad")
    async with nodes(address, "edge-1") as (node,), controlling(address, path) as task:
        assert (await task).phase == "returned"
        await node.expect_release(1, "all")
    assert RolloutFile(path).read().announced


async def test_g6_a_version_that_turns_bad_during_the_bake_time_is_rolled_back(address, begun):
    """Also after a restart of the controller during the bake time."""
    path = begun(["edge-1"], step=2, since_ms=now_ms(), rules=structs.replace(RULES, bake_time_s=600))
    async with nodes(address, "edge-1") as (node,), asyncio.timeout(DEADLINE_S):
        async with controlling(address, path):
            await node.expect_release(2, "all")
            await node.report_serving(2, answered=40)
        assert RolloutFile(path).read().phase == "running"
        async with controlling(address, path) as task:
            await node.report_serving(2, answered=40, failed=20)
            assert "it failed 20 of 60 calls" in (await task).reason
            await node.expect_release(1, "all")
    assert RolloutFile(path).read().phase == "returned"


async def test_g6_nothing_is_decided_before_the_audits_are_read(address, begun):
    """A controller restarted after the bake time reads the audits before it ends the rollout."""
    path, released = begun(["edge-1"], step=2), threading.Event()

    def audits(_: Rollout) -> RolloutAudits:
        assert released.wait(DEADLINE_S)
        return POOR

    async with nodes(address, "edge-1") as (node,), asyncio.timeout(DEADLINE_S):
        await node.report_serving(2, answered=40)
        async with controlling(address, path, audits) as task:
            await node.expect_release(2, "all")
            released.set()
            assert (await task).phase == "returned"


@pytest.mark.slow
async def test_a_controller_killed_at_each_stage_continues(address, begun, tmp_path):
    """With kill -9 in shadow, canary and all, no stage is skipped or sent twice to a node that is at it."""
    path = begun(["edge-1"])
    words = (
        "rollout",
        str(tmp_path / "2.tar"),
        "--broker",
        f"127.0.0.1:{address.port}",
        "--stage-s",
        "0",
        "--bake-time-s",
        "0",
    )
    command = Command(tmp_path, "cloud", *words, "--dataset", str(tmp_path / "none"))
    async with nodes(address, "edge-1") as (node,):
        try:
            command.start()
            for stage in ("shadow", "canary", "all"):
                await node.expect_release(2, stage)
                if stage != "all":
                    await node.report_canary(0)
                command.kill()
                command.start()
                await (node.report_serving(2) if stage == "all" else node.report_canary())
            assert await asyncio.to_thread(command.wait) == 0
        finally:
            command.kill()
        assert [stage for _, stage in node.received][:3] == ["shadow", "canary", "all"]
        assert RolloutFile(path).read().phase == "finished"


def test_two_rollouts_never_run_at_once(tmp_path):
    """Of one version or of two: the error names the running one, and its end frees the lock."""
    two, three = (Registry(tmp_path).rollout_file(version) for version in (2, 3))
    with two.lock():
        for state in (two, three):
            sentence = rf"cannot start {state.path.stem}: rollout-2 \(process {os.getpid()}\) is running"
            with pytest.raises(TransientError, match=sentence), state.lock():
                pass
    with three.lock(), pytest.raises(TransientError, match=r": rollout-3 .* is running"), two.lock():
        pass


def test_a_file_without_a_rollout_is_an_error(tmp_path):
    """It is neither overwritten nor taken for a new rollout; the error is one sentence."""
    path = tmp_path / "rollout-2.json"
    assert RolloutFile(path).read() is None
    path.write_text("{}")
    with pytest.raises(PermanentError, match="cannot read rollout state"):
        RolloutFile(path).read()
