"""While no answer arrives, one message is repeated instead of all: a cut link carries each about once."""

import asyncio
import json
import random
from collections import Counter

from bus.broker.mosquitto_conf import Bridge
from bus.broker.process import BrokerProcess
from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.subscription import RawMessage
from bus.outbox.outbox import Outbox
from bus.outbox.schedule import Entry, Schedule
from bus.outbox.silence import Silence
from bus.outbox.sqlite import Database
from schemas.topics import RECEIPT, SAMPLE
from tests.conftest import DEADLINE_S, eventually, running
from tests.proxy import Proxy, proxy_to

LIMITS = OutboxLimits(window=8, resend_first_s=1, resend_cap_s=4)
NODE = "edge-1"
SAMPLES, SAMPLE_BYTES, INTERVALS = 40, 20_000, 10


def silent_schedule() -> Schedule:
    """Return a schedule with a full window that was sent at 0."""
    schedule = Schedule(LIMITS, random.Random(7), Silence(after_s=0.5))
    for number in range(LIMITS.window):
        schedule.add(Entry(str(number), "topic", 1, 0.0), now=0)
    assert len(schedule.take_due(0)) == LIMITS.window
    return schedule


def test_a_silent_receiver_gets_one_message_again():
    """It is repeated with back-off, and the others are not."""
    schedule, sent = silent_schedule(), []
    for tenth in range(1, 1000):
        sent += [(tenth / 10, entry.message_id) for entry in schedule.take_due(tenth / 10)]
    assert len({message_id for _, message_id in sent}) == 1
    assert len(sent) >= 100 / LIMITS.resend_cap_s - 2


def test_the_first_answer_ends_the_silence():
    """What was sent before gets time to be answered; then each message is repeated as usual."""
    schedule = silent_schedule()
    for tenth in range(1, 500):
        schedule.take_due(tenth / 10)
    schedule.remove("3")
    schedule.answered(50.0)
    assert schedule.take_due(50.0 + LIMITS.resend_cap_s - 0.1) == []
    again = set()
    for tenth in range(500, 700):
        schedule.answered(tenth / 10)  # answers for other messages arrive all the time
        again |= {entry.message_id for entry in schedule.take_due(tenth / 10)}
    assert again == {str(number) for number in range(LIMITS.window)} - {"3"}


def test_messages_that_were_lost_are_all_repeated_after_an_answer():
    """Nothing answers them until they are sent again: the wait does not count as a new silence."""
    schedule = silent_schedule()
    for tenth in range(1, 500):
        schedule.take_due(tenth / 10)
    schedule.remove("3")
    schedule.answered(50.0)
    again = [entry.message_id for entry in schedule.take_due(50.0 + LIMITS.resend_cap_s)]
    assert sorted(again) == sorted({str(number) for number in range(LIMITS.window)} - {"3"})


def test_another_message_replaces_an_answered_probe():
    """A probe that was answered or dropped does not end the repetitions."""
    schedule, probes = silent_schedule(), []
    for tenth in range(1, 1000):
        for entry in schedule.take_due(tenth / 10):
            probes.append(entry.message_id)
            schedule.remove(entry.message_id)
    assert len(probes) >= 2


async def test_a_cut_bridge_carries_each_sample_about_once(tmp_path, mosquitto, broker, address):
    """After a cut of many resend intervals, what crosses the link is about what is new, and all is stored."""
    async with proxy_to(broker.port) as proxy:
        local = BrokerProcess(
            tmp_path / "edge", program=mosquitto, bridge=Bridge(NODE, "127.0.0.1", proxy.port)
        )
        local.start()
        try:
            await _compare(tmp_path, proxy, address, Broker(port=local.port))
        finally:
            local.stop()


async def _compare(tmp_path, proxy: Proxy, cloud_at: Broker, edge_at: Broker) -> None:
    cloud, edge = Bus(cloud_at, transient_client_id("cloud")), Bus(edge_at, transient_client_id("edge"))
    samples, receipts = cloud.subscribe_raw(SAMPLE.filter), edge.subscribe_raw(RECEIPT.filter)
    at_edge, published = edge.subscribe_raw(SAMPLE.filter, queue=4096), Counter[bytes]()
    arrived: list[str] = []
    counters = Counters()
    limits = OutboxLimits(resend_first_s=0.2, resend_cap_s=0.4)
    async with (
        Database(tmp_path / "edge.db", {"outbox": Outbox.MIGRATIONS}) as database,
        running(cloud, edge),
    ):
        outbox = Outbox(database, limits, counters, name="sample", sparing=True)

        async def collect() -> None:
            while True:
                message = await samples.get()
                arrived.append(message.payload[:32].decode())
                receipt = json.dumps({"photo_id": arrived[-1]}).encode()
                await cloud.publish_bytes(RECEIPT.name(node=NODE), receipt)

        async def settle() -> None:
            while True:
                await outbox.mark_answered(json.loads((await receipts.get()).payload)["photo_id"])

        async def put(number: int) -> None:
            identifier = f"{number:032x}"
            payload = identifier.encode().ljust(SAMPLE_BYTES, b"x")
            await outbox.put(identifier, SAMPLE.name(node=NODE), payload)

        tasks = [
            asyncio.create_task(collect()),
            asyncio.create_task(settle()),
            asyncio.create_task(outbox.run(edge.publish_bytes, edge.connected)),
        ]
        try:
            await put(0)  # the bridge works
            async with asyncio.timeout(DEADLINE_S):
                await outbox.wait_until_empty()
            proxy.closed = True
            proxy.cut()
            for number in range(1, SAMPLES + 1):
                await put(number)
            before = proxy.forwarded_bytes
            # As many resend intervals: without the rule every message would have been published that often.
            await eventually(lambda: max(_published(at_edge, published).values(), default=0) > INTERVALS)
            proxy.heal()
            async with asyncio.timeout(DEADLINE_S):
                await outbox.wait_until_empty()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert set(arrived) == {f"{number:032x}" for number in range(SAMPLES + 1)}
    crossed, new = proxy.forwarded_bytes - before, SAMPLES * SAMPLE_BYTES
    assert crossed < 2 * new, f"{crossed} bytes crossed the link for {new} new ones"


def _published(at_edge: asyncio.Queue[RawMessage], published: Counter[bytes]) -> Counter[bytes]:
    """Count what was published at the edge's broker, by id."""
    while not at_edge.empty():
        published[at_edge.get_nowait().payload[:32]] += 1
    return published
