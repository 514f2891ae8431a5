"""Keep the Rules of a gateway's nodes working: create missing ones, and recreate those that are silent.

A Rule that exists before its node is online never works, and nothing in the cluster shows it. The same is
true of a node that was removed from the cluster and joined again.

A probe goes down to the node and up again by a Rule. If it does not return although messages of the node
arrive, the way down is at fault, and creating Rules again would only interrupt the way up.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import structlog

from bus.gateway.config import GatewayConfig, RuleRepairConfig
from bus.gateway.router_client import Router
from bus.gateway.routes import Route, node_routes
from bus.gateway.rules.kube_api import Cluster, ClusterError, ClusterRefusedError
from bus.gateway.rules.rule_check import SETTLE_S, Verdict, Verifier, create_missing, recreate
from bus.gateway.uplink import Uplink
from bus.mqtt.client import Bus

log = structlog.get_logger()

_PROBE_S = 5.0


class RuleRepair:
    """Repairs the Rules of the gateway's nodes, also of nodes that come online later.

    Args:
        config: The gateway's nodes and name.
        settings: How often, and against which API server.
        bus: Client of the cloud's broker; a subscription is made here, so its `run` must start later.
        router: Entered.
        uplink: Knows what a node sent recently, see `silent_s` of the gateway. The Rules of a silent
            node are probed again, although they worked before.
    """

    def __init__(
        self,
        config: GatewayConfig,
        settings: RuleRepairConfig,
        bus: Bus,
        router: Router,
        uplink: Uplink,
    ) -> None:
        self._settings = settings
        self._uplink = uplink
        self._bus = bus
        self._routes = [route for node in config.nodes for route in node_routes(node)]
        self._verifier = Verifier(bus, router, gateway=config.name, timeout_s=_PROBE_S)
        self._worked_at: dict[Route, float] = {}

    async def run(self) -> None:
        """Check and repair until cancelled. Safe to cancel: the next run creates what is missing."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._verifier.run(), name="rules.probes")
            tasks.create_task(self._repeat(), name="rules.repair")

    async def _repeat(self) -> None:
        await self._bus.connected()
        created = False
        while True:
            try:
                if not created:
                    await self._create()
                    created = True
                await self._repair()
            except (ClusterError, ClusterRefusedError) as error:
                # Rules that work do not need the API server.
                log.warning("rules.cluster_failed", error=str(error))
            await asyncio.sleep(self._settings.every_s)

    async def _create(self) -> None:
        async with self._cluster() as cluster:
            if names := await create_missing(cluster, self._routes, self._settings.gateway):
                log.info("rules.created", rules=names)
                await asyncio.sleep(SETTLE_S)

    async def _repair(self) -> None:
        """Probe what is not known to work, recreate what is silent, and probe it again."""
        self._forget_silent()
        routes = due(self._routes, self._worked_at, time.monotonic(), self._settings.recheck_s)
        silent = await self._probe(routes)
        undelivered = nodes_without_downlink(routes, silent, self._uplink.carries)
        await self._report(undelivered, {route.node for route in routes})
        silent = [route for route in silent if route.node not in undelivered]
        if not silent:
            return
        log.warning("rules.silent", topics=[route.name for route in silent])
        async with self._cluster() as cluster:
            await recreate(cluster, silent, self._settings.gateway)
        await asyncio.sleep(SETTLE_S)
        still = await self._probe(silent)
        repaired = [route.name for route in silent if route not in still]
        self._bus.counters.add("rules.repaired", len(repaired))
        log.info("rules.repaired", topics=repaired)

    async def _report(self, undelivered: Collection[str], probed: Iterable[str]) -> None:
        """Report the nodes to which no message gets through."""
        for node in sorted(probed):
            if node in undelivered:
                found = f"{node} gets nothing from the cloud, although its messages arrive"
                await self._bus.report_degraded(f"downlink of {node}", f"{found}: restart edgecore there")
            elif any(route.node == node for route in self._worked_at):
                await self._bus.report_recovered(f"downlink of {node}")

    def _forget_silent(self) -> None:
        for route in self._routes:
            if route in self._worked_at and self._uplink.is_silent(route.node):
                del self._worked_at[route]

    async def _probe(self, routes: list[Route]) -> list[Route]:
        """Probe routes and note which work; return those that recreating their Rules may repair."""
        silent = []
        async for finding in self._verifier.check(routes):
            self._worked_at.pop(finding.route, None)
            if finding.verdict is Verdict.WORKS:
                self._worked_at[finding.route] = time.monotonic()
            elif finding.verdict is Verdict.SILENT:
                silent.append(finding.route)
        return silent

    def _cluster(self) -> Cluster:
        # Read again for each use: the token of a service account is renewed on disk.
        settings = self._settings
        token, ca = (Path(path) if path else None for path in (settings.server_token, settings.server_ca))
        return Cluster(settings.server, token, ca)


def nodes_without_downlink(
    probed: Iterable[Route], silent: Iterable[Route], carries: Callable[[Route], bool]
) -> set[str]:
    """Return the nodes to which no probe gets, although a Rule carries their messages to the cloud.

    Args:
        probed: The routes that were probed.
        silent: Those whose probes the Router took, and which did not return.
        carries: Returns True for a route by which messages come.
    """
    unanswered, returned = set(silent), {route.node for route in set(probed) - set(silent)}
    return {route.node for route in unanswered if carries(route)} - returned


def due(routes: list[Route], worked_at: Mapping[Route, float], now: float, recheck_s: float) -> list[Route]:
    """Return the routes to probe: those that did not work when last probed, or were not probed for a while.

    Args:
        routes: All routes.
        worked_at: When a route last worked, in seconds of a monotonic clock; without an entry it does not.
        now: The present time of that clock.
        recheck_s: A route that works is probed again after this, in seconds.
    """
    return [route for route in routes if route not in worked_at or now - worked_at[route] >= recheck_s]
