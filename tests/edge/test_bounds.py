"""G3: what the edge keeps stays inside its bounds, whatever is away for however long."""

import asyncio
from collections import Counter
from itertools import count

import msgspec

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest import history
from edge.harvest.sampler import Sampler
from edge.serving.prediction import Prediction
from schemas.messages import Caps, HarvestRules, Photo
from tests.conftest import eventually, fill
from tests.nodes import NODE, QUICK, enveloped, photo, photo_id, station

DAY_S = 86_400
SURE = Prediction("pets", 1, {"cat": 0.95, "dog": 0.05}, b"")


async def test_g3_two_days_without_the_cloud_keep_what_the_caps_allow(tmp_path):
    """Cut off, an edge keeps what the caps allow until its outbox is full, and sends it all later.

    A photo every 40 seconds by the sampler's clock; the second day no longer fits.
    """
    tables = {"outbox": Outbox.MIGRATIONS, "harvested": history.MIGRATIONS}
    rules = HarvestRules(
        audit_share=0, near_duplicate_s=60, caps=Caps(per_minute=2, per_hour=50, per_day=500)
    )
    limits = OutboxLimits(max_messages=800, min_free_bytes=0, window=200)
    now = 0.0
    images = [photo(seed) for seed in range(40)]
    async with Database(tmp_path / "edge.db", tables) as database:
        outbox = Outbox(database, limits, Counters(), name="sample")
        sampler = Sampler(rules, outbox, clock=lambda: now)
        views = [await sampler.view(image) for image in images]
        kept: Counter[str] = Counter()
        kept_by_day = []
        for number in range(2 * DAY_S // 40):
            now = number * 40.0
            which = number % len(images)
            taken = Photo(photo_id=photo_id(number), node=NODE, device="pi-1", image=images[which])
            got, why = await sampler.sample(taken, views[which], SURE)
            kept[why] += 1
            if got is not None:
                await database.run(got.write)
                outbox.commit(got.item)
            if number in (DAY_S // 40 - 1, 2 * DAY_S // 40 - 1):
                kept_by_day.append(kept["auto"])
        assert kept_by_day == [500, 800]
        assert kept.total() == 2 * DAY_S // 40
        assert {"cap-per-hour", "cap-per-day", "outbox-full"} < set(kept)
        assert len(outbox) == 800
        assert outbox.size_bytes <= 800 * (max(map(len, images)) + 1000)
        await _drain(outbox)
    assert (tmp_path / "edge.db").stat().st_size < 2 * 800 * (max(map(len, images)) + 1000)


async def _drain(outbox: Outbox) -> None:
    """Let the cloud be back: every sample is answered as soon as it is sent."""
    sent: asyncio.Queue[str] = asyncio.Queue()

    async def publish(_: str, payload: bytes) -> None:
        sent.put_nowait(msgspec.msgpack.decode(payload)["photo_id"])

    async def connected(after: int) -> int:
        if after:
            await asyncio.Event().wait()
        return 1

    sending = asyncio.create_task(outbox.run(publish, connected))
    async with asyncio.timeout(60):
        while len(outbox):
            await outbox.mark_answered(await sent.get())
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_g3_a_full_disk_defers_and_says_so_and_loses_nothing(config, small_disk):
    """With its disk full an edge defers and its Status says why; with room again it answers for good."""
    config = msgspec.structs.replace(
        config,
        state_dir=str(small_disk / "state"),
        outbox=msgspec.structs.replace(QUICK, min_free_bytes=1_000_000),
    )
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1)))
        assert (await seen.answer(photo_id(1))).harvest == "auto"
        filler = fill(small_disk)
        numbers = count(2)
        while seen.newest().state == "online":  # the log may still have room for a few
            await seen.send(enveloped(next(numbers), photo(2)))
            await asyncio.sleep(0.05)
        last = next(numbers) - 1
        await eventually(lambda: any(result.status == "deferred" for result in seen.results))
        assert "disk" in (seen.newest().reason or "")
        filler.unlink()
        for number in range(2, last + 1):
            assert (await seen.answer(photo_id(number), within_s=30)).status == "ok"
        await seen.send(enveloped(last + 1, photo(3)))
        assert (await seen.answer(photo_id(last + 1))).harvest == "auto"
        await eventually(lambda: seen.newest().state == "online")
