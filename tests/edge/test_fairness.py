"""One device floods the edge; the others must not notice (guarantee G3)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from bus.mqtt import Bus, passing_id
from schemas.messages import Result
from schemas.topics import PHOTO
from tests.conftest import eventually, running
from tests.nodes import NODE, Observer, counted, edge_running, enveloped, photo, photo_id

_FLOOD_AT_ONCE = 50


@asynccontextmanager
async def flood(config, device: str = "flood") -> AsyncIterator[None]:
    """Publish photos as fast as the broker takes them, for the length of a block, and await no answer."""
    bus = Bus(config.broker, passing_id("flood"))
    images, numbers = [photo(number) for number in range(20)], count(1_000_000)

    async def publish() -> None:
        for number in numbers:
            payload = enveloped(number, images[number % 20], device)
            await bus.publish_bytes(PHOTO.name(node=NODE, device=device), payload)

    async with running(bus):
        tasks = [asyncio.create_task(publish()) for _ in range(_FLOOD_AT_ONCE)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_g3_a_flood_does_not_hold_up_a_calm_device(config):
    """Between a calm photo's arrival at the edge and its answer, only a few of the flood are answered."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            async with flood(config):
                await eventually(lambda: any(one.status == "deferred" for one in seen.results))
                for number in range(30):
                    await seen.send(enveloped(number, photo(number), "calm"), "calm")
                    assert (await seen.answer(photo_id(number), "calm", within_s=60)).status == "ok"
        counters = await counted(seen)
        deferred = [one for one in seen.results if one.status == "deferred"]
        answered = [one for one in seen.results if one.status == "ok"]
    overtook = [
        sum(one.device == "flood" and _overtakes(one, calm) for one in answered)
        for calm in answered
        if calm.device == "calm"
    ]
    assert sorted(overtook)[len(overtook) * 9 // 10] <= 16
    assert counters["photo.shed"] > 100
    assert "bus.overflowed" not in counters
    assert {one.device for one in deferred} == {"flood"}
    assert "flood has 64 photos in hand" in deferred[0].reason


def _overtakes(one: Result, calm: Result) -> bool:
    """Tell whether the edge gave an answer while it had the calm photo in hand."""
    return calm.answered_at_ms - calm.edge_ms <= one.answered_at_ms < calm.answered_at_ms
