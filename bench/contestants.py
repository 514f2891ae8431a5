"""Who answers photos: our pipeline, and the bare loop that is its limit."""

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec import Struct, json

from bench import wire
from bench.load import AnswerError, Ask
from bench.photos import NODE, payload
from bench.setting import CACHE
from bus.broker.debian_package import unpack
from edge.serving.client import BadInputError, ModelUnavailableError, Predictor
from schemas.topics import PHOTO, RESULT

CALLS = 2
BATCH = 16
"""As the edge handler has them; the bare loop does the same."""
DEVICES = 64
"""Enough for full batches: a device is in one call at most."""


class _Said(Struct):
    photo_id: str
    status: str


@contextlib.asynccontextmanager
async def pipeline(port: int, devices: int = DEVICES) -> AsyncIterator[Ask]:
    """Ask by MQTT: from the publication of a photo to the result."""
    waiting: dict[str, asyncio.Future[None]] = {}
    names = itertools.cycle([f"camera-{number}" for number in range(devices)])

    def take(_topic: str, message: bytes) -> None:
        said = json.decode(message, type=_Said)
        if said.status != "deferred" and (answer := waiting.pop(said.photo_id, None)) is not None:
            if answer.done():
                return
            if said.status == "ok":
                answer.set_result(None)
            else:
                answer.set_exception(AnswerError(said.status))

    async def ask(photo: bytes) -> None:
        device, photo_id = next(names), secrets.token_hex(16)
        waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        connection.publish(PHOTO.name(node=NODE, device=device), payload(device, photo, photo_id))
        await answer

    connection = await wire.connect(port, "bench-cameras", take)
    await connection.subscribe(RESULT.select(node=NODE))
    try:
        yield ask
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def bare_loop(serving: str, model: str) -> AsyncIterator[Ask]:
    """Ask the model server itself: calls and batches as the handler makes them, and nothing else."""
    arrived: asyncio.Queue[tuple[bytes, asyncio.Future[None]]] = asyncio.Queue()

    async def call(predictor: Predictor) -> None:
        while True:
            batch = [await arrived.get()]
            while len(batch) < BATCH and not arrived.empty():
                batch.append(arrived.get_nowait())
            try:
                await predictor.predict([photo for photo, _ in batch])
            except (BadInputError, ModelUnavailableError) as error:
                _settle([answer for _, answer in batch], AnswerError(str(error)))
            else:
                _settle([answer for _, answer in batch], None)

    async def ask(photo: bytes) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        arrived.put_nowait((photo, answer))
        await answer

    async with Predictor(serving, model) as predictor:
        calls = [asyncio.create_task(call(predictor), name=f"bench.call-{n}") for n in range(CALLS)]
        try:
            yield ask
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


def _settle(answers: list[asyncio.Future[None]], error: AnswerError | None) -> None:
    for answer in answers:
        if answer.done():
            continue
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)


def mosquitto_clients(cache: Path = CACHE) -> tuple[Path, dict[str, str]]:
    """Return the folder of mosquitto's C clients, and the environment that they need."""
    folder = cache / "mosquitto-clients"
    if not (folder / "usr/bin/mosquitto_pub").exists():
        unpack(("mosquitto-clients", "libmosquitto1", "libcjson1"), folder)
    libraries = os.pathsep.join(str(found) for found in (folder / "usr/lib").glob("*-linux-gnu*"))
    return folder / "usr/bin", dict(os.environ) | {"LD_LIBRARY_PATH": libraries}
