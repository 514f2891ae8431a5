"""Rules of edge/forgetting.py: an order reaches everything that an edge keeps of a photo, once."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from bus.config import OutboxLimits
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge import forgetting
from edge.config import EdgeConfig
from edge.forgetting import Forgetting
from edge.harvest.sampler import Sampler
from edge.inference.answers import result_log
from edge.service import TABLES
from schemas.messages import Feedback, Forget, Result
from schemas.policy_rules import HarvestRules
from schemas.topics import FEEDBACK, FORGET
from tests.conftest import eventually, running
from tests.nodes import NODE, Observer, counted, edge_running, enveloped, photo, photo_id, station

ORDER, OTHER = "a" * 32, "b" * 32
DEVICES = ("pi-1", "pi-2")


def order(order_id: str = ORDER, **fields: object) -> Forget:
    return Forget(node=NODE, order_id=order_id, at_ms=now_ms(), **fields)  # type: ignore[arg-type]  # a test's own words


async def answer_four(seen: Observer) -> None:
    """Have photos 0 and 1 of pi-1, and 2 and 3 of pi-2 answered and harvested; no receipt comes."""
    for number in range(4):
        device = DEVICES[number // 2]
        await seen.send(enveloped(number, photo(number), device=device), device)
        await seen.answer(photo_id(number), device)
    await eventually(lambda: len({sample.photo_id for sample in seen.samples}) == 4)


def kept(config: EdgeConfig) -> dict[str, set[int]]:
    """Return the photos in each table of an edge that ended."""
    with closing(sqlite3.connect(Path(config.state_dir) / "edge.db")) as database:
        columns = {"outbox": "id", "answer": "photo_id", "harvested": "photo_id"}
        return {
            table: {int(row[0], 16) for row in database.execute(f"SELECT {column} FROM {table}")}
            for table, column in columns.items()
        }


async def confirmed(seen: Observer, order_id: str = ORDER) -> None:
    await eventually(lambda: seen.newest().forgotten == order_id)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"photo_ids": [photo_id(0), "f" * 32]}, {1, 2, 3}),
        ({"devices": {"pi-2": 2**53}}, {0, 1}),
        ({"devices": {"pi-2": 1}, "before_ms": 1}, {0, 1, 2, 3}),
        ({"before_ms": 2**53}, set()),
    ],
    ids=["by id, one of them unknown", "of a device", "before all of them", "all"],
)
async def test_an_order_deletes_answers_samples_and_hashes(config, fields, left):
    """Of the named photos alone; the bytes leave the file too, and the Status and an Event confirm it."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await answer_four(seen)
            pictures = {int(sample.photo_id, 16): sample.image for sample in seen.samples}
            await seen.bus.publish(FORGET, order(**fields), node=NODE)
            await confirmed(seen)
            await eventually(lambda: any(event.event == "photos.forgotten" for event in seen.events))
        assert (await counted(seen)).get("sample.discarded", 0) == 4 - len(left)
    assert kept(config) == dict.fromkeys(("outbox", "answer", "harvested"), left)
    file = (Path(config.state_dir) / "edge.db").read_bytes()
    assert {number for number, picture in pictures.items() if picture in file} == left


async def test_an_order_waits_for_an_edge_that_is_away_and_is_carried_out_once(config):
    """It is retained: the edge finds it when it returns, confirms it after each start, repeats nothing."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await answer_four(seen)
        await seen.status("offline")
        await seen.bus.publish(FORGET, order(before_ms=2**53), node=NODE)
        async with edge_running(config):
            await confirmed(seen)
            await seen.send(enveloped(7, photo(7)))
            await seen.answer(photo_id(7))
        assert kept(config)["answer"] == {7}
        seen.statuses.clear()
        async with edge_running(config):
            await confirmed(seen)  # the retained order was delivered again
            await seen.bus.publish(FORGET, order(before_ms=2**53), node=NODE)
            await seen.bus.publish_bytes(FORGET.name(node=NODE), b"nonsense")
            await seen.bus.publish(FORGET, order(OTHER), node=NODE)
            await confirmed(seen, OTHER)
        assert kept(config)["answer"] == {7}
        assert (await counted(seen))["forget.malformed"] == 1


async def test_a_photo_from_the_outbox_of_a_forgotten_camera_is_answered_and_not_harvested(config):
    """By the device's clock as the edge knows it, also after a restart; later photos are harvested."""
    an_hour = 3_600_000
    behind = now_ms() - an_hour  # the clock of pi-1

    async def arrive(number: int, taken_at_ms: int, device: str = "pi-1", *, late: bool = True) -> str | None:
        content = enveloped(number, photo(number), device, taken_at_ms=taken_at_ms, historical=late)
        await seen.send(content, device)
        return (await seen.answer(photo_id(number), device)).harvest

    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.bus.publish(FORGET, order(devices={"pi-1": now_ms() - 60_000}), node=NODE)
            await confirmed(seen)
            assert await arrive(0, behind, late=False) != "forgotten"  # shows the clock
            assert await arrive(1, behind - 120_000) == "forgotten"
            assert await arrive(2, behind - 30_000) != "forgotten"
            assert await arrive(3, now_ms() - 120_000, "pi-2") != "forgotten"
        async with edge_running(config):
            assert await arrive(4, now_ms() - an_hour) == "forgotten"
        await eventually(lambda: {int(one.photo_id, 16) for one in seen.samples} == {0, 2, 3})


async def test_a_photo_in_memory_is_not_harvested_for_a_label_any_more(config):
    """A photo that no rule harvested is kept for a label that may follow; after an order it is not there."""
    config = msgspec.structs.replace(
        config, harvest=msgspec.structs.replace(config.harvest, auto=False, uncertain_above=1.0)
    )
    async with station(config) as seen:
        for number in (0, 1):
            await seen.send(enveloped(number, photo(number, "grey")))
            assert (await seen.answer(photo_id(number))).harvest is not None
        await seen.bus.publish(FORGET, order(photo_ids=[photo_id(0)]), node=NODE)
        await confirmed(seen)
        for number in (0, 1):
            label = Feedback(photo_id=photo_id(number), node=NODE, device="pi-1", label="cat", by="ann")
            await seen.bus.publish(FEEDBACK, label, node=NODE, device="pi-1")
        await eventually(lambda: bool(seen.samples))
        assert {sample.photo_id for sample in seen.samples} == {photo_id(1)}


async def test_a_forgotten_view_is_new_again(config):
    """The hash of a forgotten photo makes no later one a near-duplicate."""
    rules = msgspec.structs.replace(config.harvest, near_duplicate_s=3600.0)
    async with station(msgspec.structs.replace(config, harvest=rules)) as seen:
        outcomes = []
        for number in range(2):
            await seen.send(enveloped(number, photo(0)))
            outcomes.append((await seen.answer(photo_id(number))).harvest)
        await seen.bus.publish(FORGET, order(photo_ids=[photo_id(0), photo_id(1)]), node=NODE)
        await confirmed(seen)
        await seen.send(enveloped(2, photo(0)))
        outcomes.append((await seen.answer(photo_id(2))).harvest)
        assert outcomes == ["auto", "near-duplicate", "auto"]


async def test_g3_a_large_order_takes_little_disk_and_holds_nothing_up(address, tmp_path, monkeypatch):
    """G3: all that is deleted is overwritten, and passes through the log of the database in small parts."""
    monkeypatch.setattr(forgetting, "_ROWS_AT_ONCE", 100)
    bus, ids = Bus(address, "edge"), [photo_id(number) for number in range(240)]
    async with Database(tmp_path / "edge.db", TABLES) as database:
        outbox = Outbox(database, OutboxLimits(), bus.counters, name="sample")
        for start in range(0, len(ids), 16):
            some = ids[start : start + 16]
            await asyncio.gather(*(outbox.put(one, "t", os.urandom(100_000)) for one in some))
        answers = [
            Result(photo_id=one, node=NODE, device="pi-1", status="ok", label="l" * 128, answered_at_ms=1)
            for one in ids
        ]
        await database.run(lambda connection: result_log.record(connection, answers, kept=1000))
        sampler = Sampler(HarvestRules(), outbox)
        forgets = Forgetting(bus, node=NODE, name="edge", database=database, outbox=outbox, sampler=sampler)
        async with running(bus):
            await forgets._carry_out(order(photo_ids=ids[1:]))
        assert (tmp_path / "edge.db-wal").stat().st_size < 8_000_000
        assert (len(outbox), bus.counters["sample.discarded"]) == (1, 239)
    with closing(sqlite3.connect(tmp_path / "edge.db")) as left:
        assert left.execute("SELECT photo_id FROM answer").fetchall() == [(ids[0],)]
