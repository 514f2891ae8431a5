"""The device as one process: camera, outbox, connection and agent, put together."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from device import result_log
from device.agent import Agent, Answer
from device.cameras.factory import open_camera
from device.config import DeviceConfig
from schemas.codec import mark_historical


async def run(
    config: DeviceConfig, show: Callable[[Answer], None], password: str | None = None
) -> dict[str, int]:
    """Run the agent until its camera is exhausted or it is cancelled, and return its counters.

    Raises:
        CameraError: The camera does not work.
        StorageError: The state folder cannot be used, for example because another agent uses it.
        PermanentError: The broker refuses a subscription.
    """
    counters = Counters()
    bus = Bus(
        config.broker,
        f"gleaner-{config.node}-{config.name}",
        password=password,
        presence=Presence(config.node, config.name),
        durable=True,
        counters=counters,
    )
    tables = {"outbox": Outbox.MIGRATIONS, "answers": result_log.MIGRATIONS}
    async with (
        open_camera(config.camera) as camera,
        Database(Path(config.state_dir) / f"{config.name}.db", tables) as database,
    ):
        outbox = Outbox(database, config.outbox, counters, name="photo", transform_late=mark_historical)
        await outbox.load()
        agent = Agent(config, bus, camera, database=database, outbox=outbox, show=show)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(bus.run(), name="device.bus")]
            if config.probes is not None:
                probes = HealthServer(config.probes, bus.unready_reason)
                background.append(tasks.create_task(probes.run(), name="device.probes"))
            await agent.run()
            for task in background:
                task.cancel()
    return counters.snapshot()
