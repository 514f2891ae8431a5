"""Check KubeEdge's Rules by sending a probe the whole way: Router, node, EventBus, Router, gateway.

A Rule that was created while its node was offline never works, and nothing in the cluster shows it. Creating
it again while the node is online helps.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bus.gateway.router_client import Router, RouterError, RouterRefusedError
from bus.gateway.routes import Route
from bus.gateway.rules import rule_probe
from bus.gateway.rules.kube_api import Cluster
from bus.gateway.rules.rules import DOWN_NAME, ENDPOINTS, endpoint, rule_down, rule_name, rule_up
from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from schemas.errors import CodecError
from schemas.messages import Event
from schemas.topics import CLOUD, EVENT

_ATTEMPTS = 3
_CONCURRENT_PROBES = 16
SETTLE_S = 2.0
"""How long cloudcore and a node need to apply changed Rules, in seconds."""


class Verdict(StrEnum):
    """Result of probing a Rule, in words for people."""

    WORKS = "works"
    SILENT = "the Router took the probe, but the gateway never received it"
    UNDELIVERED = "the Router did not take the probe"


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """Result for one Rule; `reason` is the Router's answer, if it refused the probe."""

    route: Route
    verdict: Verdict
    reason: str = ""


class Verifier:
    """Probes Rules.

    Args:
        bus: Client of the cloud's broker, where the gateway reports; its `run` must start later.
        router: Entered.
        gateway: Name of the gateway.
        timeout_s: How long to wait for each probe, in seconds.
    """

    def __init__(self, bus: Bus, router: Router, *, gateway: str, timeout_s: float) -> None:
        self._router = router
        self._timeout_s = timeout_s
        self._events: Subscription[Event] = bus.subscribe(EVENT, node=CLOUD, name=gateway)
        self._awaited: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(_CONCURRENT_PROBES)

    async def run(self) -> None:
        """Receive the gateway's events until cancelled."""
        async for delivery in self._events:
            delivery.ack()
            try:
                number = delivery.message().facts.get("probe")
            except CodecError:
                continue
            # Probes of another `verify`, or late ones, have numbers that are not awaited.
            if isinstance(number, str) and number in self._awaited:
                self._awaited[number].set()

    async def check(self, routes: Iterable[Route]) -> AsyncIterator[RuleFinding]:
        """Probe the Rules of routes, several at a time; yield the findings in the order of the routes."""
        async with asyncio.TaskGroup() as tasks:
            for probing in [tasks.create_task(self._check_route(route)) for route in routes]:
                yield await probing

    async def _check_route(self, route: Route) -> RuleFinding:
        async with self._slots:
            for _ in range(_ATTEMPTS):  # EventBus loses messages even when all Rules work
                try:
                    if await self._arrives(route):
                        return RuleFinding(route, Verdict.WORKS)
                except (RouterError, RouterRefusedError) as error:
                    return RuleFinding(route, Verdict.UNDELIVERED, error.reason)
        return RuleFinding(route, Verdict.SILENT)

    async def _arrives(self, route: Route) -> bool:
        probe = rule_probe.new_probe()
        arrived = self._awaited[probe.number] = asyncio.Event()
        try:
            await self._router.post(route.node, route.name, probe.payload)
            async with asyncio.timeout(self._timeout_s):
                await arrived.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            del self._awaited[probe.number]


async def create_missing(cluster: Cluster, routes: Iterable[Route], gateway: str) -> list[str]:
    """Create the missing endpoints and Rules; return the names of the created Rules."""
    for kind in ENDPOINTS:
        await cluster.create(endpoint(kind))
    existing = await cluster.names("Rule")
    rules = {DOWN_NAME: rule_down()} | {rule_name(route): rule_up(route, gateway) for route in routes}
    missing = [name for name in rules if name not in existing]
    for name in missing:
        await cluster.create(rules[name])
    return missing


async def recreate(cluster: Cluster, routes: Sequence[Route], gateway: str) -> None:
    """Delete the Rules of routes and create them again."""
    for route in routes:
        await cluster.delete("Rule", rule_name(route))
    await asyncio.sleep(SETTLE_S)  # cloudcore may otherwise handle a creation before the deletion
    for route in routes:
        await cluster.create(rule_up(route, gateway))
