"""kill -9 of the edge process loses or doubles no result and no sample."""

import asyncio
import signal
import sqlite3
from pathlib import Path

import pytest
from msgspec import structs

from edge.harvest.shrinking.image import shrink
from schemas.messages import Receipt
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import PHOTO, RECEIPT
from tests.conftest import eventually
from tests.faults.crashing import points_of
from tests.nodes import NODE, Observer, device, edge_process, enveloped, photo, photo_id


def table(config, query: str) -> list[tuple]:
    """Read the database of an edge that was killed."""
    with sqlite3.connect(Path(config.state_dir) / "edge.db") as connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    return rows


async def test_g1_every_photo_gets_one_recorded_answer(broker, config, tmp_path):
    """Handler and broker are killed several times in the middle of a stream; each photo has one result."""
    topic = PHOTO.name(node=NODE, device="pi-1")
    with edge_process(config, tmp_path) as edge:
        edge.start()
        async with Observer(config.broker).watching() as seen, device(seen, tmp_path) as outbox:
            await seen.status("online")
            for number in range(120):
                await outbox.put(photo_id(number), topic, enveloped(number, photo(number)))
                if number in (30, 60, 90):
                    await eventually(lambda wanted=number // 2: len(seen.final()) > wanted)
                    edge.kill()
                    edge.start()
                if number in (45, 90):
                    broker.kill()
                    broker.start()
            await outbox.wait_until_empty()
            answers = seen.final()
            assert set(answers) == {photo_id(number) for number in range(120)}
            assert all(result == answers[result.photo_id] for result in seen.results if result.label)
        edge.kill()
    recorded = table(config, "SELECT photo_id, count(*) FROM answer GROUP BY photo_id")
    assert recorded == [(photo_id(number), 1) for number in range(120)]


async def test_near_duplicates_and_caps_survive_a_kill(config, tmp_path):
    """After kill -9 an edge still has the hashes and counts of its samples."""
    rules = HarvestRules(audit_share=0, caps=Caps(per_day=3))
    with edge_process(structs.replace(config, harvest=rules), tmp_path) as edge:
        async with Observer(config.broker).watching() as seen:
            edge.start()
            await seen.status("online")
            for number in range(2):
                await seen.send(enveloped(number, photo(number)))
                assert (await seen.answer(photo_id(number))).harvest == "auto"
            edge.kill()
            edge.start()
            for number, wanted in enumerate(["near-duplicate", "near-duplicate", "auto", "cap-per-day"]):
                await seen.send(enveloped(10 + number, photo(number)))
                assert (await seen.answer(photo_id(10 + number))).harvest == wanted
        edge.kill()


async def test_g2_a_harvested_sample_survives_a_kill(config, tmp_path):
    """A sample that a result announced is sent after kill -9 too, until its receipt arrives."""
    with edge_process(config, tmp_path) as edge:
        async with Observer(config.broker).watching() as seen:
            edge.start()
            await seen.status("online")
            for number in range(30):
                await seen.send(enveloped(number, photo(number)))
            await eventually(lambda: len(seen.final()) >= 15)
            edge.kill()
            edge.start()
            for number in range(30):  # the broker redelivers those in flight
                assert (await seen.answer(photo_id(number))).harvest == "auto"
            seen.samples.clear()
            edge.kill()
            edge.start()
            wanted = {photo_id(number) for number in range(30)}
            await eventually(lambda: {sample.photo_id for sample in seen.samples} == wanted)
            images = {(sample.photo_id, sample.image) for sample in seen.samples}
            assert images == {(photo_id(number), photo(number)) for number in range(30)}
            last = photo_id(29)
            for one in wanted - {last}:
                receipt = Receipt(photo_id=one, node=NODE, status="stored", received_at_ms=1)
                await seen.bus.publish(RECEIPT, receipt, node=NODE)
            await eventually(lambda: {sample.photo_id for sample in seen.samples[-3:]} == {last})
        edge.kill()
    assert table(config, "SELECT id FROM outbox") == [(last,)]


@pytest.mark.parametrize("point", points_of("large-photo"))
async def test_g1_g2_a_kill_while_a_sample_is_shrunk_after_the_answer(config, tmp_path, point):
    """Each photo keeps its answer, and its sample is sent once, at training size."""
    images = {photo_id(number): photo(number, size=(800, 640)) for number in range(3)}
    with edge_process(config, tmp_path) as edge:
        async with Observer(config.broker).watching() as seen:
            edge.start(at=point)
            await seen.status("online")
            for number, image in enumerate(images.values()):
                await seen.send(enveloped(number, image))
            assert await asyncio.to_thread(edge.wait) == -signal.SIGKILL
            seen.forget_results()
            seen.samples.clear()
            edge.start()
            await eventually(lambda: {sample.photo_id for sample in seen.samples} == images.keys())
            await seen.send(enveloped(9, photo(9)))
            await seen.answer(photo_id(9))
        edge.kill()
    for sample in seen.samples:
        assert sample.photo_id == photo_id(9) or sample.image == shrink(images[sample.photo_id]).image
    recorded = table(config, "SELECT photo_id, count(*) FROM answer GROUP BY photo_id")
    assert recorded == [(one, 1) for one in sorted([*images, photo_id(9)])]
    assert len(table(config, "SELECT id FROM outbox")) == 4
    assert table(config, "SELECT * FROM unshrunk") == []
