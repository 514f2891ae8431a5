"""Broker, model server and edge handlers of a run, as separate processes."""

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
    """The running processes.

    Args:
        broker: Mosquitto.
        serving: `host:port` of the model server.
        base: Folder of the versions of its model.
        processes: Starts more processes.
        pids: Process ids by name: `broker`, `model server`, `handler` and so on.
    """

    broker: BrokerProcess
    serving: str
    base: Path
    processes: Processes
    pids: dict[str, int] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def served(folder: Path, model: str, *flags: str) -> AsyncIterator[Stack]:
    """Run a broker and a model server that serves a model, with further flags."""
    base, port = folder / "models" / models.MODEL, free_port()
    await models.place(model, base)
    with local_broker(folder / "broker") as broker:
        async with Processes(folder / "logs") as processes:
            server = (f"--port={port}", f"--model_name={models.MODEL}", f"--model_base_path={base}", *flags)
            await processes.start("modelserver", "modelserver", *server)
            pids = {BROKER: broker.pid or 0, MODEL_SERVER: processes.pid("modelserver")}
            await listening(port, processes)
            yield Stack(broker, f"127.0.0.1:{port}", base, processes, pids)


async def add_handler(stack: Stack, folder: Path, process: str = "handler", /, **settings: object) -> None:
    """Start an edge handler and wait until its model is available.

    Several handlers can share a model server here, because no release is made.

    Args:
        stack: Stack to add it to.
        folder: Parent folder of its state.
        process: Name of the process.
        settings: Fields of its configuration, in addition to those of the stack.
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
    node, name = (str((fixed | settings)[key]) for key in ("node", "name"))
    await _available(stack.broker.port, node, name)


@contextlib.asynccontextmanager
async def program(words: Sequence[str], environment: Mapping[str, str], log: Path) -> AsyncIterator[int]:
    """Run a program until the end of the block, and kill it with its children; yield its process id."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *words, env=os.environ | environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        # The whole session: servers such as uvicorn start worker processes.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await process.wait()


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


async def _available(port: int, node: str, name: str) -> None:
    """Wait until the Status of a handler reports an available model."""
    bus = Bus(Broker(port=port), transient_client_id("bench"))
    statuses = bus.subscribe(STATUS, node=node, name=name)
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
    """Wait until a port accepts connections.

    Raises:
        PermanentError: A process has exited instead.
        TimeoutError: It took too long.
    """
    started_at = time.monotonic()
    while not await asyncio.to_thread(is_listening, port):
        processes.check()
        if time.monotonic() - started_at > _START_S:
            raise TimeoutError(f"no server on port {port} in {_START_S:g} s")
        await asyncio.sleep(0.05)
