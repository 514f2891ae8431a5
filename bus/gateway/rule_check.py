"""Whether each Rule works, seen by sending a probe the whole way: Router, node, EventBus, Router, gateway.

A Rule that was made while its node was away never works, and nothing in the cluster says so; making it anew
while the node is there helps.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bus.gateway import rule_probe
from bus.gateway.kube_api import Cluster
from bus.gateway.router_client import Router, RouterError
from bus.gateway.routes import Route
from bus.gateway.rules import DOWN_NAME, ENDPOINTS, endpoint, rule_down, rule_name, rule_up
from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from schemas.errors import CodecError
from schemas.messages import Event
from schemas.topics import CLOUD, EVENT

_ATTEMPTS = 3
_AT_ONCE = 16
BETWEEN_S = 2.0
"""How long cloudcore and a node may take to follow a change of Rules, in seconds."""


class Verdict(StrEnum):
    """What became of a probe."""

    WORKS = "works"
    SILENT = "the Router took the probe, but the gateway never saw it"
    UNDELIVERED = "the Router did not take the probe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One Rule, and what became of its probe; `reason` is the Router's own where it said one."""

    crossing: Route
    verdict: Verdict
    reason: str = ""


class Verifier:
    """Probes Rules.

    Args:
        bus: On the cloud's broker, where the gateway reports; connected by its own `run`.
        router: Entered.
        gateway: Name of the gateway.
        timeout_s: How long a probe may be under way.
    """

    def __init__(self, bus: Bus, router: Router, *, gateway: str, timeout_s: float) -> None:
        self._router = router
        self._timeout_s = timeout_s
        self._events: Subscription[Event] = bus.subscribe(EVENT, node=CLOUD, name=gateway)
        self._awaited: dict[str, asyncio.Event] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Listen to the gateway until cancelled."""
        async for delivery in self._events:
            delivery.ack()
            try:
                number = delivery.message().facts.get("probe")
            except CodecError:
                continue
            if isinstance(number, str) and number in self._awaited:
                self._awaited[number].set()

    async def findings(self, routes: Iterable[Route]) -> AsyncIterator[Finding]:
        """Probe each Rule, several at once, and yield what is found in the order given."""
        async with asyncio.TaskGroup() as tasks:
            for probing in [tasks.create_task(self._find(one)) for one in routes]:
                yield await probing

    async def _find(self, one: Route) -> Finding:
        """Probe a Rule, more than once, because the bus loses messages also when all is well."""
        async with self._places:
            for _ in range(_ATTEMPTS):
                try:
                    if await self._arrives(one):
                        return Finding(one, Verdict.WORKS)
                except RouterError as error:
                    return Finding(one, Verdict.UNDELIVERED, str(error.got))
        return Finding(one, Verdict.SILENT)

    async def _arrives(self, one: Route) -> bool:
        drawn = rule_probe.draw()
        seen = self._awaited[drawn.number] = asyncio.Event()
        try:
            await self._router.post(one.node, one.name, drawn.payload)
            async with asyncio.timeout(self._timeout_s):
                await seen.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            del self._awaited[drawn.number]


async def complete(cluster: Cluster, routes: Iterable[Route], gateway: str) -> list[str]:
    """Make the endpoints and Rules that are missing; returns the names of the Rules made."""
    for kind in ENDPOINTS:
        await cluster.create(endpoint(kind))
    there = await cluster.names("Rule")
    wanted = {DOWN_NAME: rule_down()} | {rule_name(one): rule_up(one, gateway) for one in routes}
    made = [name for name in wanted if name not in there]
    for name in made:
        await cluster.create(wanted[name])
    return made


async def renew(cluster: Cluster, routes: Sequence[Route], gateway: str) -> None:
    """Make Rules anew; cloudcore works on deletions and creations in no order, so they need some distance."""
    for one in routes:
        await cluster.delete("Rule", rule_name(one))
    await asyncio.sleep(BETWEEN_S)
    for one in routes:
        await cluster.create(rule_up(one, gateway))
