"""The device as one process: camera, outbox, MQTT connection and agent."""

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
from device.agent import Agent, PhotoResult
from device.cameras.factory import open_camera
from device.config import DeviceConfig
from schemas.codec import mark_historical


async def run(
    config: DeviceConfig, on_result: Callable[[PhotoResult], None], password: str | None = None
) -> dict[str, int]:
    """Run the agent until its camera has no more photos, and return its counters.

    Safe to cancel: photos in the outbox are sent by the next run.

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
    # The camera is opened before the connection: a wrong --camera ends the process with its error instead of
    # an agent that is online and takes nothing.
    async with (
        open_camera(config.camera) as camera,
        Database(Path(config.state_dir) / f"{config.name}.db", tables) as database,
    ):
        outbox = Outbox(database, config.outbox, counters, name="photo", transform_late=mark_historical)
        await outbox.load()
        agent = Agent(config, bus, camera, outbox=outbox, on_result=on_result)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(bus.run(), name="device.bus")]
            if config.probes is not None:
                probes = HealthServer(config.probes, bus.unready_reason)
                background.append(tasks.create_task(probes.run(), name="device.probes"))
            await agent.run()
            # Only now: the agent has waited for the last results, which need the connection.
            for task in background:
                task.cancel()
    return counters.snapshot()
