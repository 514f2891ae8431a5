"""The systems that are compared: the pipeline, and the bare loop that is its limit."""

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec import Struct, json, msgpack

from bench import wire
from bench.load import Request, RequestFailedError
from bench.photos import NODE, payload
from bench.setting import CACHE
from bus.broker.debian_package import unpack
from edge.serving.client import BadInputError, ModelUnavailableError, Predictor
from schemas.codec import encode
from schemas.messages import Receipt
from schemas.topics import PHOTO, RECEIPT, RESULT, SAMPLE

CALLS = 2
BATCH = 16
"""Concurrent calls and batch size of the edge handler; the bare loop uses the same."""
DEVICES = 64
"""Enough for full batches: the edge handler takes a device into one call at a time."""


class _Status(Struct):
    photo_id: str
    status: str


class _Sample(Struct):
    photo_id: str


@contextlib.asynccontextmanager
async def pipeline(port: int, devices: int = DEVICES, node: str = NODE) -> AsyncIterator[Request]:
    """Yield a function that publishes a photo and returns with its result; samples get receipts."""
    waiting: dict[str, asyncio.Future[None]] = {}
    names = itertools.cycle([f"camera-{number}" for number in range(devices)])

    def on_message(topic: str, message: bytes) -> None:
        if topic == samples:
            photo_id = msgpack.decode(message, type=_Sample).photo_id
            receipt = Receipt(photo_id=photo_id, node=node, status="stored", received_at_ms=1)
            connection.publish(RECEIPT.name(node=node), encode(RECEIPT, receipt))
            return
        result = json.decode(message, type=_Status)
        # A deferred result is followed by the final one, so the request stays open.
        if result.status != "deferred" and (answer := waiting.pop(result.photo_id, None)) is not None:
            if answer.done():
                return
            if result.status == "ok":
                answer.set_result(None)
            else:
                answer.set_exception(RequestFailedError(result.status))

    async def request(photo: bytes) -> None:
        device, photo_id = next(names), secrets.token_hex(16)
        waiting[photo_id] = answer = asyncio.get_running_loop().create_future()
        connection.publish(PHOTO.name(node=node, device=device), payload(device, photo, photo_id, node))
        await answer

    samples = SAMPLE.name(node=node)
    connection = await wire.connect(port, f"bench-cameras-{node}", on_message)
    await connection.subscribe(RESULT.select(node=node))
    await connection.subscribe(samples)
    try:
        yield request
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def bare_loop(serving: str, model: str) -> AsyncIterator[Request]:
    """Yield a function that calls the model server directly, with the calls and batches of the handler."""
    queue: asyncio.Queue[tuple[bytes, asyncio.Future[None]]] = asyncio.Queue()

    async def call(predictor: Predictor) -> None:
        while True:
            batch = [await queue.get()]
            while len(batch) < BATCH and not queue.empty():
                batch.append(queue.get_nowait())
            try:
                await predictor.predict([photo for photo, _ in batch])
            except (BadInputError, ModelUnavailableError) as error:
                _resolve([answer for _, answer in batch], RequestFailedError(str(error)))
            else:
                _resolve([answer for _, answer in batch], None)

    async def request(photo: bytes) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.put_nowait((photo, answer))
        await answer

    async with Predictor(serving, model) as predictor:
        calls = [asyncio.create_task(call(predictor), name=f"bench.call-{n}") for n in range(CALLS)]
        try:
            yield request
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


def _resolve(answers: list[asyncio.Future[None]], error: RequestFailedError | None) -> None:
    for answer in answers:
        if answer.done():
            continue
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)


def mosquitto_clients(cache: Path = CACHE) -> tuple[Path, dict[str, str]]:
    """Return the folder of the C clients of mosquitto, and the environment that they need."""
    folder = cache / "mosquitto-clients"
    if not (folder / "usr/bin/mosquitto_pub").exists():
        unpack(("mosquitto-clients", "libmosquitto1", "libcjson1"), folder)
    libraries = os.pathsep.join(str(found) for found in (folder / "usr/lib").glob("*-linux-gnu*"))
    return folder / "usr/bin", dict(os.environ) | {"LD_LIBRARY_PATH": libraries}
