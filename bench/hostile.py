"""Devices that send the slowest photos that they can: `python -m bench.fairness --hostile 10`.

A progressive JPEG may repeat a scan as often as it likes, and a decoder applies each to the whole image.
"""

import asyncio
import io
import secrets

from PIL import Image

from bench.photos import NODE
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from schemas.codec import encode
from schemas.messages import Photo
from schemas.topics import PHOTO, RESULT

_START_OF_SCAN = b"\xff\xda"
_TABLES = b"\xff\xc4"
_END = b"\xff\xd9"
_SIDE = 3990
_RESEND_S = 30.0


def slow_jpeg(scans: int, side: int = _SIDE) -> bytes:
    """Return a grey JPEG of `side` x `side` pixels with `scans` additional scans."""
    return with_scans(Image.new("L", (side, side), 128), scans)


def with_scans(picture: Image.Image, scans: int) -> bytes:
    """Return a picture as a progressive JPEG with `scans` additional scans."""
    out = io.BytesIO()
    picture.save(out, "JPEG", progressive=True)
    image = out.getvalue()
    last = image.rindex(_START_OF_SCAN)
    # With its tables: each scan of Pillow's brings its own.
    tables = image.rfind(_TABLES, 0, last)
    scan = image[tables if image.count(_START_OF_SCAN, tables, last) == 0 else last : -len(_END)]
    return image[: -len(_END)] + scan * scans + _END


async def hostile(port: int, devices: int, scans: int) -> None:
    """Let each device send a slow photo, wait for its result and send the next one, until killed."""
    image = slow_jpeg(scans)
    bus = Bus(Broker(port=port), transient_client_id("hostile"))
    names = [f"hostile-{number}" for number in range(devices)]
    results = {name: bus.subscribe(RESULT, node=NODE, device=name) for name in names}

    async def send(name: str) -> None:
        while True:
            photo = Photo(photo_id=secrets.token_hex(16), node=NODE, device=name, image=image)
            await bus.publish_bytes(PHOTO.name(node=NODE, device=name), encode(PHOTO, photo))
            try:
                async with asyncio.timeout(_RESEND_S):
                    async for delivery in results[name]:
                        delivery.ack()
                        if delivery.message().status != "deferred":
                            break
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bus.run())
        await bus.connected()
        for name in names:
            tasks.create_task(send(name))
