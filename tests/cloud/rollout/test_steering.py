"""Rules of cloud/rollout/steering.py: orders reach a rollout once, and are kept in its state."""

import asyncio

import pytest
from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import now_ms
from cloud.registry.rollout_state import RolloutFile
from cloud.rollout.state_machine import apply, assignments
from cloud.rollout.steering import MAX_ORDERS, is_open, new_order, obey, publish_order, with_order
from schemas.errors import PermanentError
from schemas.messages import CanaryReport, VersionStats
from schemas.topics import STEERING
from tests.cloud.rollout.test_controller import begun, controlling, nodes, short_poll  # noqa: F401  # fixtures
from tests.cloud.rollout.test_state_machine import rollout, trying
from tests.conftest import DEADLINE_S, eventually, running
from tests.nodes import Observer


async def give(address, order) -> None:
    bus = Bus(address, transient_client_id("operator"))
    echoes = bus.subscribe(STEERING)
    async with running(bus):
        await publish_order(bus, echoes, order)


def test_promoting_gives_every_group_the_version_and_then_ends_the_watch():
    """The figures of the champion are kept for the watch; nodes that refused it stay out."""
    state = rollout(["edge-1"], ["edge-2", "edge-3"], skipped=["edge-3"], paused=True)
    reports = {"edge-1": trying(state).canary}
    state = apply(state, obey(new_order(state, "promote", "maria"), reports), 5000)
    assert {node: one.stage for node, one in assignments(state).items()} == {"edge-1": "all", "edge-2": "all"}
    assert (state.is_baking, state.paused) == (True, False)
    assert state.baseline == {"edge-1": VersionStats(version=1, answered=100, p95_ms=10.0)}
    assert apply(state, obey(new_order(state, "promote", "maria"), {}), 6000).phase == "finished"


def test_an_order_is_for_one_rollout_and_is_carried_out_once():
    """Not for another rollout of the same version, and not again when it is delivered again."""
    state = rollout(began_ms=1000)
    order = new_order(state, "pause", "maria", "look at the dogs")
    assert is_open(state, order)
    assert not is_open(structs.replace(state, began_ms=2000), order)
    assert not is_open(with_order(state, order), order)
    reports: dict[str, CanaryReport] = {"edge-1": trying(state).canary}
    decision = obey(order, reports)
    assert decision.reason == "paused by maria: look at the dogs"
    assert decision.facts == {
        "order_id": order.order_id,
        "action": "pause",
        "by": "maria",
        "compared": 100,
        "disagreed": 0,
    }


def test_a_rollout_keeps_its_newest_orders():
    """The state file is bounded."""
    state = rollout()
    for number in range(MAX_ORDERS + 3):
        state = with_order(state, new_order(state, "pause", f"person {number}"))
    assert [order.by for order in state.orders][:: MAX_ORDERS - 1] == ["person 3", f"person {MAX_ORDERS + 2}"]


def test_a_rollout_that_has_ended_takes_no_orders():
    """The error names what to do instead."""
    with pytest.raises(PermanentError, match="version 2 is finished"):
        new_order(rollout(phase="finished"), "roll-back", "maria")


async def test_g6_an_operator_pauses_resumes_and_rolls_back(address, begun):  # noqa: F811  # a fixture
    """Nothing continues while paused, the champion returns, and each order leaves an event."""
    path = begun(["edge-1"])
    file = RolloutFile(path)
    async with Observer(address).watching() as seen, nodes(address, "edge-1") as (node,):
        async with controlling(address, path) as task, asyncio.timeout(DEADLINE_S):
            await node.expect_release(2, "shadow")
            await give(address, new_order(file.read(), "pause", "maria"))
            await eventually(lambda: any(event.event == "rollout.steered" for event in seen.events))
            await node.report_canary()
            assert file.read().paused
            await give(address, new_order(file.read(), "resume", "maria"))
            await node.expect_release(2, "canary")
            assert [order.action for order in file.read().orders] == ["pause", "resume"]
            await give(address, new_order(file.read(), "roll-back", "maria", "wrong dogs"))
            assert (await task).phase == "returned"
            await node.expect_release(1, "all")
        await eventually(lambda: seen.events[-1].event == "rollout.returned")
        assert seen.events[-1].reason == "rolled back by maria: wrong dogs"
        steered = [event.facts["action"] for event in seen.events if event.event == "rollout.steered"]
        assert steered == ["pause", "resume", "roll-back"]


async def test_an_order_waits_for_a_controller_that_is_away(address, begun):  # noqa: F811  # a fixture
    """The broker retains it; a controller that is restarted after it was carried out does not repeat it."""
    path = begun(["edge-1"], ["edge-2"], began_ms=now_ms())
    order = new_order(RolloutFile(path).read(), "promote", "maria")
    await give(address, order)
    async with nodes(address, "edge-1", "edge-2") as (one, two), asyncio.timeout(DEADLINE_S):
        async with controlling(address, path):
            await one.expect_release(2, "all")
            await two.expect_release(2, "all")
        state = RolloutFile(path).read()
        assert (state.phase, [done.order_id for done in state.orders]) == ("running", [order.order_id])
        async with controlling(address, path) as task:
            await one.report_serving(2)
            await two.report_serving(2)
            assert (await task).phase == "finished"
        assert len(RolloutFile(path).read().orders) == 1
