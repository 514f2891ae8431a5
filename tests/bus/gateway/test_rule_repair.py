"""The gateway keeps the Rules of its nodes working, without a person."""

from pathlib import Path

import pytest

from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.gateway import rule_repair
from bus.gateway.config import GatewayConfig, RuleRepairConfig
from bus.gateway.routes import node_routes
from bus.gateway.rule_repair import due
from tests.apiserver import TOKEN, StandInApiServer
from tests.conftest import eventually
from tests.router import NODE, StandInRouter, gateway_running

ROUTES = list(node_routes(NODE))
CREATED = [f"create up.{NODE}.{route.topic.kind}" for route in ROUTES]
DELETED = [f"delete up.{NODE}.{route.topic.kind}" for route in ROUTES]


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


@pytest.mark.slow
async def test_rules_made_before_their_node_joined_are_repaired(
    cloud: BrokerProcess, router: StandInRouter, listen: str, tmp_path: Path
) -> None:
    """The gateway creates missing Rules, and recreates silent ones once their node is online."""
    router.deaf = {route.name for route in ROUTES}
    router.away.add(NODE)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    api = StandInApiServer(router, [NODE])
    async with api.running():
        repair = RuleRepairConfig(
            gateway=f"http://{listen}", every_s=0.1, server=api.url, server_token=str(token)
        )
        config = GatewayConfig(
            broker=Broker(port=cloud.port), listen=listen, router=router.url, rule_repair=repair
        )
        async with gateway_running(config):
            await eventually(lambda: router.counts["down away"] > len(ROUTES))
            assert api.log[-len(ROUTES) :] == CREATED
            router.away.clear()
            await eventually(lambda: not router.deaf)
            probes = router.counts["up 200"]
            await eventually(lambda: router.counts["up 200"] >= probes + len(ROUTES))
    assert api.log[-2 * len(ROUTES) :] == [*DELETED, *CREATED]


async def test_rules_of_a_node_that_joined_again_are_repaired(
    cloud: BrokerProcess,
    router: StandInRouter,
    listen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rules that worked are probed again as soon as their node is silent, not only after `recheck_s`."""
    monkeypatch.setattr(rule_repair, "_PROBE_S", 0.5)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    api = StandInApiServer(router, [NODE])
    async with api.running():
        repair = RuleRepairConfig(
            gateway=f"http://{listen}", every_s=0.1, server=api.url, server_token=str(token)
        )
        config = GatewayConfig(
            broker=Broker(port=cloud.port), listen=listen, router=router.url, silent_s=1.0, rule_repair=repair
        )
        async with gateway_running(config):
            await eventually(lambda: router.counts["up 200"] >= len(ROUTES))
            assert not any(line.startswith("delete") for line in api.log)
            router.deaf = {route.name for route in ROUTES}
            await eventually(lambda: not router.deaf)
    assert api.log[-2 * len(ROUTES) :] == [*DELETED, *CREATED]
