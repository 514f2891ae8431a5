"""The parts of a run as processes of their own: broker, model server, edge handlers."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import models
from bench.photos import NODE
from bus.broker.process import BrokerProcess, free_port, is_listening, local_broker
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from demo.processes import Processes
from schemas.topics import HANDLERS, STATUS

BROKER, MODEL_SERVER = "broker", "model server"
_START_S = 120.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs.

    Args:
        broker: Mosquitto.
        serving: `host:port` of the model server.
        base: Folder of its model's versions.
        processes: To start more.
        pids: By name: `broker`, `model server`, `handler` and so on.
    """

    broker: BrokerProcess
    serving: str
    base: Path
    processes: Processes
    pids: dict[str, int] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def served(folder: Path, model: str) -> AsyncIterator[Stack]:
    """Run a broker and a model server that serves a model."""
    base, port = folder / "models" / models.MODEL, free_port()
    await models.place(model, base)
    with local_broker(folder / "broker") as broker:
        async with Processes(folder / "logs") as processes:
            server = (f"--port={port}", f"--model_name={models.MODEL}", f"--model_base_path={base}")
            await processes.start("modelserver", "modelserver", *server)
            pids = {BROKER: broker.pid or 0, MODEL_SERVER: processes.pid("modelserver")}
            await listening(port, processes)
            yield Stack(broker, f"127.0.0.1:{port}", base, processes, pids)


async def add_handler(stack: Stack, folder: Path, process: str = "handler", /, **settings: object) -> None:
    """Start an edge handler and wait until its model is available.

    Several may have the same model server, because no release ever comes.

    Args:
        stack: Gets it.
        folder: For its state.
        process: Its name among the processes.
        settings: Fields of its configuration, beside those that the stack gives.
    """
    config = folder / f"{process}.toml"
    fixed: dict[str, object] = {
        "node": NODE, "name": HANDLERS[0], "serving": stack.serving, "models_dir": str(stack.base.parent),
        "state_dir": str(folder / process), "broker.port": stack.broker.port,
    }  # fmt: skip
    lines = [f"{key} = {_toml(value)}" for key, value in (fixed | settings).items()]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    await stack.processes.start(process, "edge", "--config", str(config))
    stack.pids[process] = stack.processes.pid(process)
    await _available(stack.broker.port, str(settings.get("name", HANDLERS[0])))


@contextlib.asynccontextmanager
async def program(words: Sequence[str], environment: Mapping[str, str], log: Path) -> AsyncIterator[int]:
    """Run a program and those that it starts until the end of the block; yields its process id."""
    with log.open("ab") as told:
        process = await asyncio.create_subprocess_exec(
            *words, env=os.environ | environment, stdin=asyncio.subprocess.DEVNULL, stdout=told, stderr=told,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await process.wait()


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


async def _available(port: int, name: str) -> None:
    """Wait for a Status of a handler that says that its model is available."""
    bus = Bus(Broker(port=port), transient_client_id("bench"))
    statuses = bus.subscribe(STATUS, node=NODE, name=name)
    running = asyncio.create_task(bus.run(), name="bench.status")
    try:
        async with asyncio.timeout(_START_S):
            async for delivery in statuses:
                delivery.ack()
                status = delivery.message()
                if status.state == "online" and status.model and status.model.state == "available":
                    return
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def listening(port: int, processes: Processes) -> None:
    """Wait until something accepts connections on a port.

    Raises:
        PermanentError: A process ended instead.
        TimeoutError: It took too long.
    """
    began = time.monotonic()
    while not await asyncio.to_thread(is_listening, port):
        processes.check()
        if time.monotonic() - began > _START_S:
            raise TimeoutError(f"port {port}: expected a server within {_START_S} s, got none")
        await asyncio.sleep(0.05)
