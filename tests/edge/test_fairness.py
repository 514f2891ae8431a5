"""G3: a device that floods the edge neither delays other devices nor fills the memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from schemas.messages import Result
from schemas.topics import PHOTO
from tests.conftest import eventually, running
from tests.nodes import NODE, Observer, counted, edge_process, edge_running, enveloped, photo, photo_id

_FLOOD_AT_ONCE = 50


@asynccontextmanager
async def flooding(config, device: str = "flood") -> AsyncIterator[None]:
    """Publish photos as fast as the broker accepts them, for the length of a block."""
    bus = Bus(config.broker, transient_client_id("flood"))
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


def overtaken(calm: Result, flood: list[Result]) -> int:
    """Return how many photos of the flood were classified between the arrival and the result of a photo."""
    arrived_at_ms = calm.answered_at_ms - calm.edge_ms
    return sum(arrived_at_ms <= other.answered_at_ms <= calm.answered_at_ms for other in flood)


async def test_g3_a_flood_does_not_delay_a_calm_device(config):
    """A photo of a calm device overtakes the queue of a flooding one, whose excess photos are deferred."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            async with flooding(config):
                await eventually(lambda: any(one.status == "deferred" for one in seen.results))
                for number in range(20):
                    await seen.send(enveloped(number, photo(number), "calm"), "calm")
                    assert (await seen.answer(photo_id(number), "calm")).status == "ok"
        counters = await counted(seen)
    flood = [one for one in seen.final("flood").values() if one.status == "ok"]
    counts = sorted(overtaken(one, flood) for one in seen.final("calm").values())
    assert counts[len(counts) * 3 // 4] <= 5, counts  # first come, first served: all 64 in the queue
    deferred = [one for one in seen.results if one.status == "deferred"]
    assert {one.device for one in deferred} == {"flood"}
    assert "flood has 64 photos in flight" in deferred[0].reason
    assert counters["photo.shed"] >= len(deferred)
    assert "bus.overflowed" not in counters


async def test_g3_a_hanging_server_does_not_fill_the_memory(config, serving, tmp_path):
    """Photos that wait for a hanging server are bounded in bytes, and answered when it continues."""
    config = structs.replace(
        config, predict_timeout_s=3.0, max_batch=4, waiting_per_device=200, waiting_bytes=20_000_000
    )
    large = photo(1) + bytes(500_000)  # decoders ignore what follows the end of a JPEG
    with edge_process(config, tmp_path) as edge:
        async with Observer(config.broker).watching() as seen:
            edge.start()
            await seen.status("online")
            before_mb = edge.resident_mb()
            serving.pause()
            for number in range(150):
                device = f"pi-{number % 10}"
                await seen.send(enveloped(number, large, device), device)
            assert "DEADLINE_EXCEEDED" in (await seen.status("degraded")).reason
            await eventually(
                lambda: any("has the most photos in flight" in (one.reason or "") for one in seen.results)
            )
            grown_mb = edge.resident_mb() - before_mb
            assert grown_mb < 60, f"{grown_mb:.0f} MB more than the {before_mb:.0f} MB before"
            serving.resume()
            await seen.send(enveloped(1000, photo(1000), "calm"), "calm")
            assert (await seen.answer(photo_id(1000), "calm")).status == "ok"
            await seen.status("online")
