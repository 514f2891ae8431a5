"""The device as one process: camera, outbox, MQTT connection and agent."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
from msgspec import structs

from bus import systemd
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.observability.exposition import Exposition
from bus.observability.measurements import (
    certificate_measurements,
    disk_measurements,
    outbox_measurements,
)
from bus.observability.tracing import traces
from bus.outbox.damage import DamageLog
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from device import result_log
from device.agent import Agent, PhotoResult
from device.cameras.base import Camera
from device.cameras.factory import Surroundings, open_camera
from device.cameras.hardware import Shot
from device.config import DeviceConfig
from device.preparation import Preparation, PreparedCamera
from schemas.codec import mark_historical, stored_id
from schemas.distribution import version
from schemas.text import without_secrets
from schemas.topics import PHOTO

log = structlog.get_logger()


async def run(
    config: DeviceConfig, on_result: Callable[[PhotoResult], None], password: str | None = None
) -> dict[str, int]:
    """Run the agent until its camera has no more photos, and return its counters.

    Safe to cancel: photos in the outbox are sent by the next run.

    Raises:
        CameraError: The camera does not work.
        CameraStuckError: The camera's driver hangs again and again.
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
    damage = DamageLog(counters)
    # The camera is opened before the connection: a wrong --camera ends the process with its error instead of
    # an agent that is online and takes nothing.
    async with (
        traces("gleaner-device", f"{config.node}.{config.name}") as tracer,
        PreparedCamera(_camera(config, password), _preparation(config)) as camera,
        Database(Path(config.state_dir) / f"{config.name}.db", tables, damage=damage) as database,
    ):
        outbox = Outbox(
            database,
            config.outbox,
            counters,
            name="photo",
            transform_late=mark_historical,
            read_id=partial(stored_id, PHOTO),
        )
        await outbox.load()
        agent = Agent(config, bus, camera, outbox=outbox, on_result=on_result, tracer=tracer)
        metrics = Exposition(
            "device",
            bus,
            partial(outbox_measurements, "photo", outbox, config.outbox),
            partial(disk_measurements, config.state_dir),
            partial(certificate_measurements, config.broker),
        )
        health = config.probes and HealthServer(config.probes, bus.unready_reason, metrics.page)
        with _logged(config, counters):
            await _run(agent, bus, damage, database, health or None)
    return counters.snapshot()


async def _run(
    agent: Agent, bus: Bus, damage: DamageLog, database: Database, health: HealthServer | None
) -> None:
    """Run the agent until it ends, and the rest as long."""
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(bus.run(), name="device.bus"),
            tasks.create_task(damage.run(bus.report_degraded), name="device.damage"),
            tasks.create_task(systemd.report(bus.unready_reason, database.answered), name="device.systemd"),
        ]
        if health is not None:
            background.append(tasks.create_task(health.run(), name="device.probes"))
        await agent.run()
        # Only now: the agent has waited for the last results, which need the connection.
        for task in background:
            task.cancel()


@contextmanager
def _logged(config: DeviceConfig, counters: Counters) -> Iterator[None]:
    """Log the effective configuration at the start of a block, and the counters at its end."""
    shown = structs.replace(config, camera=without_secrets(config.camera))
    log.info("device.started", version=version(), config=msgspec.to_builtins(shown))
    try:
        yield
    finally:
        log.info("device.stopped", counters=counters.snapshot())


def _camera(config: DeviceConfig, password: str | None) -> Camera:
    shot = Shot(config.size_px(), config.quality)
    return open_camera(config.camera, Surroundings(shot, config.broker, password))


def _preparation(config: DeviceConfig) -> Preparation:
    return Preparation(config.size_px(), config.max_photo_bytes, config.quality, config.crop)
