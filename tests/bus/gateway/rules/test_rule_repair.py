"""The gateway keeps the Rules of its nodes working, without a person."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.gateway.config import GatewayConfig, RuleRepairConfig
from bus.gateway.router_client import Router
from bus.gateway.routes import node_routes
from bus.gateway.rules import rule_repair
from bus.gateway.rules.rule_check import Verdict, Verifier
from bus.gateway.rules.rule_repair import due, nodes_without_downlink
from bus.mqtt.client import Bus, transient_client_id
from schemas.messages import Event
from schemas.topics import EVENT
from tests.apiserver import TOKEN, StandInApiServer
from tests.conftest import eventually
from tests.nodes import Observer
from tests.router import NODE, StandInRouter, gateway_running

ROUTES = list(node_routes(NODE))
CREATED = [f"create up.{NODE}.{route.topic.kind}" for route in ROUTES]
DELETED = [f"delete up.{NODE}.{route.topic.kind}" for route in ROUTES]


Repairing = Callable[..., AbstractAsyncContextManager[StandInApiServer]]


@pytest.fixture
def repairing(cloud: BrokerProcess, router: StandInRouter, listen: str, tmp_path: Path) -> Repairing:
    """Run a gateway that repairs its Rules, for the length of a block; yield the API server."""

    @asynccontextmanager
    async def running(**settings: float) -> AsyncIterator[StandInApiServer]:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        api = StandInApiServer(router, [NODE])
        async with api.running():
            repair = RuleRepairConfig(
                gateway=f"http://{listen}", every_s=0.1, server=api.url, server_token=str(token)
            )
            broker = Broker(port=cloud.port)
            config = GatewayConfig(
                broker=broker, listen=listen, router=router.url, rule_repair=repair, **settings
            )
            async with gateway_running(config):
                yield api

    return running


@pytest.mark.parametrize(
    ("worked_at", "expected"),
    [
        ({}, ROUTES),
        (dict.fromkeys(ROUTES, 95.0), []),
        ({ROUTES[0]: 95.0}, ROUTES[1:]),
        ({ROUTES[0]: 90.0, ROUTES[1]: 91.0, ROUTES[2]: 99.0}, ROUTES[:1]),
    ],
)
def test_only_rules_that_may_not_work_are_probed(worked_at, expected):
    """A Rule is probed until it works, and again when it was not probed for a while."""
    assert due(ROUTES, worked_at, 100.0, 10.0) == expected


@pytest.mark.parametrize(
    ("silent", "carrying", "expected"),
    [
        (ROUTES, [], set()),  # nothing comes: the Rules
        (ROUTES, ROUTES[1:2], {NODE}),  # something comes, no probe returns: the way down
        (ROUTES[:2], ROUTES, set()),  # a probe returned by another Rule: the way down works
        ([], ROUTES, set()),
    ],
)
def test_the_way_down_is_distinguished_from_rules(silent, carrying, expected):
    """It does not work if messages come by a Rule whose probe does not return, and no probe does."""
    assert nodes_without_downlink(ROUTES, silent, carrying.__contains__) == expected


@pytest.mark.slow
async def test_a_probe_that_the_router_refuses_is_a_finding(cloud, router):
    """It is undelivered, with the Router's answer; the gateway, which probes too, continues."""
    router.refusing.add(NODE)
    bus = Bus(Broker(port=cloud.port), transient_client_id("verify"))
    async with Router(router.url) as client:
        verifier = Verifier(bus, client, gateway="gateway", timeout_s=1.0)
        findings = [finding async for finding in verifier.check(ROUTES)]
    assert [finding.route for finding in findings] == ROUTES
    assert {(finding.verdict, finding.reason) for finding in findings} == {
        (Verdict.UNDELIVERED, "Request error")
    }


async def test_rules_made_before_their_node_joined_are_repaired(
    repairing: Repairing, router: StandInRouter
) -> None:
    """The gateway creates missing Rules, and recreates silent ones once their node is online."""
    router.deaf = {route.name for route in ROUTES}
    router.away.add(NODE)
    async with repairing() as api:
        await eventually(lambda: router.counts["down away"] > len(ROUTES))
        assert api.log[-len(ROUTES) :] == CREATED
        router.away.clear()
        await eventually(lambda: not router.deaf)
        probes = router.counts["up 200"]
        await eventually(lambda: router.counts["up 200"] >= probes + len(ROUTES))
    assert api.log[-2 * len(ROUTES) :] == [*DELETED, *CREATED]


async def test_rules_of_a_node_that_joined_again_are_repaired(
    repairing: Repairing, router: StandInRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that worked are probed again as soon as their node is silent, not only after `recheck_s`."""
    monkeypatch.setattr(rule_repair, "_PROBE_S", 0.5)
    async with repairing(silent_s=1.0) as api:
        await eventually(lambda: router.counts["up 200"] >= len(ROUTES))
        assert not any(line.startswith("delete") for line in api.log)
        router.deaf = {route.name for route in ROUTES}
        await eventually(lambda: not router.deaf)
    assert api.log[-2 * len(ROUTES) :] == [*DELETED, *CREATED]


async def test_a_node_that_gets_nothing_is_reported(
    cloud: BrokerProcess,
    edge: BrokerProcess,
    repairing: Repairing,
    router: StandInRouter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its messages arrive, its Rules are left alone; the Status names the node and what to do."""
    monkeypatch.setattr(rule_repair, "_PROBE_S", 0.2)
    there, here = Observer(Broker(port=edge.port)), Observer(Broker(port=cloud.port))
    happened = Event(node=NODE, name="edge", event="photo.rejected", at_ms=1)
    router.wedged.add(NODE)
    async with there.watching(), here.watching(), repairing() as api:
        await eventually(lambda: len(api.log) > 0 and api.log[-1] == CREATED[-1])
        await there.bus.publish(EVENT, happened, node=NODE, name="edge")
        status = await here.status("degraded", "gateway")
        found = f"{NODE} gets nothing from the cloud, although its messages arrive"
        assert status.reason == f"{found}: restart edgecore there"
        changes = len(api.log)
        asked = router.counts["down wedged"]
        await eventually(lambda: router.counts["down wedged"] >= asked + 3 * len(ROUTES))
        assert len(api.log) == changes
        router.wedged.clear()
        await here.status("online", "gateway")
