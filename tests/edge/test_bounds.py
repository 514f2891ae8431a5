"""G3: memory and disk of the edge stay within bounds during outages of any length."""

import asyncio
from collections import Counter

import msgspec

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest import history
from edge.harvest.sampler import Sampler
from edge.serving.prediction import Prediction
from schemas.lanes import AUTO
from schemas.messages import Photo
from schemas.policy_rules import Caps, HarvestRules
from tests.conftest import eventually, fill
from tests.nodes import NODE, QUICK, enveloped, photo, photo_id, station

DAY_S = 86_400
CONFIDENT = Prediction("pets", 1, {"cat": 0.95, "dog": 0.05}, b"")


async def test_g3_two_days_without_the_cloud_fill_the_outbox_within_caps(tmp_path):
    """An edge without a cloud keeps what the caps allow until its outbox is full, and sends it all later.

    A photo every 40 seconds by the sampler's clock; the outbox is full on the second day.
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
        hashed = await sampler.hash_photos([(image, None) for image in images])
        outcomes: Counter[str] = Counter()
        harvested_by_day = []
        for number in range(2 * DAY_S // 40):
            now = number * 40.0
            which = number % len(images)
            taken = Photo(photo_id=photo_id(number), node=NODE, device="pi-1", image=images[which])
            sample, outcome = await sampler.sample(taken, hashed[which], CONFIDENT)
            outcomes[outcome] += 1
            if sample is not None:
                await database.run(sample.write)
                outbox.commit(sample.item)
            if number in (DAY_S // 40 - 1, 2 * DAY_S // 40 - 1):
                harvested_by_day.append(outcomes[AUTO])
        assert harvested_by_day == [500, 800]
        assert outcomes.total() == 2 * DAY_S // 40
        assert {"cap-per-hour", "cap-per-day", "outbox-full"} < set(outcomes)
        assert len(outbox) == 800
        assert outbox.size_bytes <= 800 * (max(map(len, images)) + 1000)
        await _drain(outbox)
    assert (tmp_path / "edge.db").stat().st_size < 2 * 800 * (max(map(len, images)) + 1000)


async def _drain(outbox: Outbox) -> None:
    """Answer every sample as soon as it is sent."""
    sent: asyncio.Queue[str] = asyncio.Queue()

    async def publish(_: str, payload: bytes) -> None:
        sent.put_nowait(msgspec.msgpack.decode(payload)["photo_id"])

    async def connected(after: int) -> int:
        if after:
            await asyncio.Event().wait()
        return 1

    sending = asyncio.create_task(outbox.run(publish, connected))
    while len(outbox):
        ids = [await sent.get()]
        while not sent.empty():  # together they share a commit, so that the speed of the disk matters less
            ids.append(sent.get_nowait())
        await asyncio.gather(*(outbox.mark_answered(photo_id) for photo_id in ids))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_g3_a_full_disk_defers_and_loses_nothing(config, small_disk):
    """While its disk is full an edge defers photos, with the reason in its status; then it answers them."""
    config = msgspec.structs.replace(
        config,
        state_dir=str(small_disk / "state"),
        outbox=msgspec.structs.replace(QUICK, min_free_bytes=1_000_000),
    )
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1)))
        assert (await seen.answer(photo_id(1))).harvest == AUTO
        filler = fill(small_disk)
        last = 1
        while seen.results[-1].status != "deferred":  # SQLite's log may still have room for a few results
            last += 1
            await seen.send(enveloped(last, photo(2)))
            await eventually(lambda sent=last: any(one.photo_id == photo_id(sent) for one in seen.results))
        assert "disk" in ((await seen.status("degraded")).reason or "")
        filler.unlink()
        for number in range(2, last + 1):
            assert (await seen.answer(photo_id(number))).status == "ok"
        await seen.send(enveloped(last + 1, photo(3)))
        assert (await seen.answer(photo_id(last + 1))).harvest == AUTO
        await seen.status("online")
