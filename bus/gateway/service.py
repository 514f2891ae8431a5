"""Run the gateway."""

import asyncio

from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.router_client import Router
from bus.gateway.uplink import Uplink
from bus.health import HealthServer
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
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
        tasks.create_task(bus.run(), name="gateway.bus")
        tasks.create_task(downlink.run(), name="gateway.downlink")
        tasks.create_task(uplink.run(), name="gateway.uplink")
        if config.probes is not None:
            tasks.create_task(HealthServer(config.probes, bus.unready_reason).run(), name="gateway.probes")
