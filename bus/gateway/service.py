"""Run the gateway."""

import asyncio
from functools import partial

from bus import systemd
from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.router_client import Router
from bus.gateway.rules.rule_repair import RuleRepair
from bus.gateway.uplink import Uplink
from bus.health import HealthServer
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.observability.exposition import Exposition
from bus.observability.measurements import certificate_measurements
from schemas.topics import CLOUD


async def run(config: GatewayConfig, password: str | None = None) -> None:
    """Run the gateway until cancelled. Safe to cancel: senders repeat lost messages.

    Raises:
        PermanentError: An address is in use, or the broker refuses a subscription.
    """
    bus = Bus(
        config.broker,
        f"gleaner-{CLOUD}-{config.name}",
        password=password,
        presence=Presence(CLOUD, config.name),
    )
    async with Router(config.router) as router, asyncio.TaskGroup() as tasks:
        downlink = Downlink(config, bus, router)
        uplink = Uplink(config, bus, downlink)
        repair = RuleRepair(config, config.rule_repair, bus, router, uplink) if config.rule_repair else None
        tasks.create_task(bus.run(), name="gateway.bus")
        tasks.create_task(downlink.run(), name="gateway.downlink")
        tasks.create_task(uplink.run(), name="gateway.uplink")
        if repair is not None:
            tasks.create_task(repair.run(), name="gateway.rules")
        tasks.create_task(systemd.report(bus.unready_reason), name="gateway.systemd")
        if config.probes is not None:
            metrics = Exposition("gateway", bus, partial(certificate_measurements, config.broker))
            health = HealthServer(config.probes, bus.unready_reason, metrics.page)
            tasks.create_task(health.run(), name="gateway.probes")
