"""Rules of cloud/collector/collector.py: receipts after the commit, nothing lost or stored twice."""

import asyncio
import collections
import dataclasses
import re
import signal
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bus.broker.process import free_port
from bus.config import Broker
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from cloud.collector import collector
from cloud.collector.collector import LABEL_WAITS_S, label_of
from cloud.collector.config import CollectorConfig
from cloud.collector.waiting_labels import WaitingLabels
from cloud.dataset.dead_letters import DeadLetterTable
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.lance_table import Table
from cloud.dataset.training_set import examples
from schemas.class_names import NEITHER
from schemas.codec import content_id, encode
from schemas.messages import Feedback, Receipt, Sample
from schemas.topics import CLOUD, FEEDBACK, SAMPLE
from tests.conftest import DEADLINE_S, ROOT, eventually, jpeg, running
from tests.nodes import NODE, Observer, photo_id, truncated


def sample(number: int, **fields: object) -> Sample:
    facts: dict[str, object] = {
        "photo_id": photo_id(number),
        "node": NODE,
        "device": "pi-1",
        "image": jpeg(number),
        "width": 160,
        "height": 120,
        "dhash": "0123456789abcdef",
        "lane": "auto",
        "label": "cat",
        "confidence": 0.9,
        "scores": {"cat": 0.9, "dog": 0.1},
        "model": "pets",
        "model_version": 1,
        "harvested_at_ms": 1,
    }
    return Sample(**(facts | fields))  # type: ignore[arg-type]  # fields vary by test


class Edge(Observer):
    """Sends samples and labels, and records receipts and events."""

    async def harvest(self, *numbers: int) -> None:
        for number in numbers:
            await self.bus.publish(SAMPLE, sample(number), node=NODE)

    async def give_label(self, number: int, label: str, **fields: object) -> None:
        facts = {"node": NODE, "device": "pi-1", "by": "ann"} | fields
        feedback = Feedback(photo_id=photo_id(number), label=label, **facts)
        await self.bus.publish(FEEDBACK, feedback, node=NODE, device="pi-1")

    async def give_label_as(self, device: str, number: int, label: str) -> None:
        feedback = Feedback(photo_id=photo_id(number), node=NODE, device=device, label=label, by="anna")
        await self.bus.publish(FEEDBACK, feedback, node=NODE, device=device)

    async def receipt(self, number: int, count: int = 1) -> Receipt:
        """Wait for the count-th receipt of a sample."""

        def found() -> list[Receipt]:
            return [receipt for receipt in self.receipts if receipt.photo_id == photo_id(number)]

        await eventually(lambda: len(found()) >= count)
        return found()[count - 1]

    async def recorded(self, count: int) -> list[str]:
        """Wait until `count` labels are recorded and return their outcomes in order."""

        def found() -> list[str]:
            return [str(event.facts["outcome"]) for event in self.events if "recorded" in event.event]

        await eventually(lambda: len(found()) >= count)
        return found()


@pytest.fixture
async def edge(address):
    async with Edge(address).watching() as edge:
        yield edge


@pytest.fixture
def dataset(tmp_path) -> Path:
    return tmp_path / "dataset"


@pytest.fixture
def collecting(address, dataset, edge):
    """Run a collector for the length of a block, which is entered when it is online."""

    @asynccontextmanager
    async def run(name: str = "collector", **fields: int):
        edge.statuses.clear()
        config = CollectorConfig(name=name, broker=address, dataset=str(dataset), **fields)
        task = asyncio.create_task(collector.run(config))
        try:
            await eventually(lambda: task.done() or edge.newest(name).state == "online")
            yield
            assert not task.done(), "the collector ended early"
        finally:
            task.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(ended, asyncio.CancelledError):
                raise ended
            await eventually(lambda: edge.newest(name).state == "offline")

    return run


async def test_sample_is_stored_and_answered(collecting, edge, dataset):
    """A sample is stored and its receipt has status `stored`; a redelivered one gets `duplicate`."""
    async with collecting():
        assert edge.newest("collector").dataset == str(dataset)
        await edge.harvest(1)
        receipt = await edge.receipt(1)
        assert (receipt.status, receipt.node, receipt.reason) == ("stored", NODE, None)
        await edge.harvest(1)
        assert (await edge.receipt(1, 2)).status == "duplicate"
    store = Store.open(dataset)
    row = store.find([photo_id(1)], ["image", "edge_label", "lane", "model_version"])[photo_id(1)]
    assert (row["image"], row["edge_label"], row["lane"], row["model_version"]) == (jpeg(1), "cat", "auto", 1)
    assert store.count("true") == 1


# A collector that kills itself with SIGKILL before or after its first commit.
DYING = """
import asyncio, os, signal, sys
from bus.config import Broker
from cloud.collector import collector

from cloud.collector.config import CollectorConfig
from cloud.dataset.dead_letters import DeadLetterTable
from cloud.dataset.store import Store
commit, moment, port, dataset = sys.argv[1:]
owner, name = {"Store.upsert": (Store, "upsert"), "DeadLetterTable.put": (DeadLetterTable, "put")}[commit]
real = getattr(owner, name)
def die(*arguments):
    if moment == "after":
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, die)
asyncio.run(collector.run(CollectorConfig(broker=Broker(port=int(port)), dataset=dataset)))
"""


@asynccontextmanager
async def dying(commit: str, moment: str, address: Broker, dataset: Path, edge: Edge):
    """Run the collector above; the block is entered when it is online and left when it is dead."""
    arguments = ["-c", DYING, commit, moment, str(address.port), str(dataset)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
    await eventually(lambda: edge.newest("collector").state == "online")
    yield
    async with asyncio.timeout(DEADLINE_S):
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("moment", "rows", "status"), [("before", 0, "stored"), ("after", 1, "duplicate")])
async def test_g2_receipt_is_sent_only_after_the_commit(
    collecting, edge, dataset, address, moment, rows, status
):
    """Killed before the commit or between commit and receipt: no receipt, and the sample is stored once."""
    async with dying("Store.upsert", moment, address, dataset, edge):
        await edge.harvest(1)
    assert edge.receipts == []
    assert Store.open(dataset).count() == rows
    async with collecting():
        await edge.harvest(1)  # the edge resends a sample without a receipt
        assert (await edge.receipt(1)).status == status
    assert Store.open(dataset).count("true") == 1


async def test_g2_several_collectors_store_each_sample_once(collecting, edge, dataset):
    """Three collectors share the samples; a sample that reaches two of them is stored by one."""
    numbers = range(40)
    async with collecting(), collecting("collector-2"), collecting("collector-3"):
        for _ in range(3):
            await edge.harvest(*numbers)
        for number in numbers:
            await edge.receipt(number, 3)
    stored = collections.Counter(receipt.photo_id for receipt in edge.receipts if receipt.status == "stored")
    assert stored == {photo_id(number): 1 for number in numbers}
    assert Store.open(dataset).count("true") == 40


async def test_label_before_its_sample_waits_for_it(collecting, edge, dataset):
    """Feedback that arrives before its sample is stored, and is on the photo afterwards."""
    async with collecting():
        await edge.give_label(1, "dog", at_ms=5)
        assert await edge.recorded(1) == ["waiting"]
        await edge.harvest(1)
        assert (await edge.receipt(1)).status == "stored"
        await edge.give_label(1, "cow", at_ms=4)
        assert await edge.recorded(2) == ["waiting", "superseded"]
    row = Store.open(dataset).find([photo_id(1)], ["human_label", "human_by", "edge_label"])[photo_id(1)]
    assert (row["human_label"], row["human_by"], row["edge_label"]) == ("dog", "ann", "cat")


async def test_label_sent_while_no_collector_runs_is_kept(collecting, edge, dataset):
    """Labels are not resent, so the broker queues them in the collector's durable session."""
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
    await edge.give_label(1, "dog")
    async with collecting():
        assert await edge.recorded(1) == ["stored"]
    assert Store.open(dataset).count("human_label = 'dog'") == 1


async def test_g4_unusable_samples_go_to_the_dead_letter_table(collecting, edge, dataset):
    """Each bad sample with a readable id gets one receipt `refused` with the reason; good ones are stored.

    Damaged pixels are found too, because training would fail on them.
    """
    bad = {
        2: encode(SAMPLE, sample(2)).replace(b"\xa1v\x01", b"\xa1v\x09"),
        3: encode(SAMPLE, sample(3, node="edge-2")),
        4: encode(SAMPLE, sample(4, image=b"GIF89a")),
        5: encode(SAMPLE, sample(5, embedding=b"123")),
        6: encode(SAMPLE, sample(6, image=truncated(jpeg(6)))),
    }
    nameless = (b"", b"{", b"\x00" * 100, jpeg(1))
    async with collecting():
        for payload in (*nameless, *bad.values()):
            await edge.bus.publish_bytes(SAMPLE.name(node=NODE), payload)
        await edge.harvest(1)
        assert (await edge.receipt(1)).status == "stored"
        refusals = [await edge.receipt(number) for number in bad]
    reasons = [
        "expected version 1",
        "node edge-1 as in",
        "expected JPEG or PNG",
        "multiple of 4",
        "a whole jpeg",
    ]
    for refusal, expected in zip(refusals, reasons, strict=True):
        assert (refusal.status, refusal.node) == ("refused", NODE)
        assert (refusal.reason or "").startswith("in the dead-letter table: ")
        assert expected in (refusal.reason or "")
    assert len(edge.receipts) == 6
    assert edge.newest("collector").counters["sample.refused"] == len(bad)
    kept = {message.key: message for message in DeadLetterTable.open(dataset).newest(99)}
    assert kept.keys() == {photo_id(number) for number in bad} | {content_id(payload) for payload in nameless}
    assert {message.node for message in kept.values()} == {NODE}
    assert kept[photo_id(6)].payload == bad[6]
    assert "a whole jpeg" in kept[photo_id(6)].reason
    assert Store.open(dataset).count("true") == 1


async def test_g4_refusal_is_sent_only_after_the_commit(collecting, edge, dataset, address):
    """Killed between the dead letter's commit and the receipt: resent, it is stored once and answered."""
    broken = encode(SAMPLE, sample(1, image=truncated(jpeg(1))))
    async with dying("DeadLetterTable.put", "after", address, dataset, edge):
        await edge.bus.publish_bytes(SAMPLE.name(node=NODE), broken)
    assert edge.receipts == []
    assert [message.key for message in DeadLetterTable.open(dataset).newest(9)] == [photo_id(1)]
    async with collecting():
        await edge.bus.publish_bytes(SAMPLE.name(node=NODE), broken)
        assert (await edge.receipt(1)).status == "refused"
    assert len(list(DeadLetterTable.open(dataset).newest(9))) == 1


async def test_g3_dead_letter_table_is_bounded(collecting, edge, dataset):
    """A flood of unusable samples drops the oldest of them, counts the drops, and affects no good sample."""
    async with collecting(dead_letter_rows=16):
        await edge.harvest(100)
        for number in range(40):
            await edge.bus.publish_bytes(
                SAMPLE.name(node=NODE), encode(SAMPLE, sample(number, image=b"GIF89a"))
            )
            await edge.receipt(number)
        await edge.receipt(100)
    last = edge.newest("collector").counters
    assert last["sample.dead_lettered"] == 40
    kept = list(DeadLetterTable.open(dataset).newest(99))
    assert len(kept) == 40 - last["dead_letter.dropped"] <= 16
    assert kept[0].key == photo_id(39)
    assert Store.open(dataset).count("true") == 1


async def test_minimal_json_feedback_is_recorded(collecting, edge, dataset):
    """JSON with photo id and label alone, as `mosquitto_pub -m` sends it, is a human label by `unknown`."""
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
        line = b'{"photo_id": "%s", "label": "dog"}' % photo_id(1).encode()
        await edge.bus.publish_bytes("gleaner/v1/feedback/edge-1/pi-1", line)
        assert await edge.recorded(1) == ["stored"]
    row = Store.open(dataset).find([photo_id(1)], ["human_label", "human_by"])[photo_id(1)]
    assert (row["human_label"], row["human_by"]) == ("dog", "unknown")


async def test_neither_is_recorded_like_any_label(collecting, edge, dataset):
    """`neither` arrives on the feedback topic, is stored as a human label, and makes no example."""
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
        line = b'{"photo_id": "%s", "label": "neither"}' % photo_id(1).encode()
        await edge.bus.publish_bytes("gleaner/v1/feedback/edge-1/pi-1", line)
        assert await edge.recorded(1) == ["stored"]
    assert Store.open(dataset).count(f"human_label = '{NEITHER}'") == 1
    assert examples(Store.open(dataset)) == []


async def test_g4_malformed_feedback_is_skipped(collecting, edge, dataset):
    """Malformed feedback is skipped; the next label is recorded."""
    async with collecting():
        for payload in (b"", b"{}", b'{"photo_id": "x", "label": "cat"}', jpeg(1)):
            await edge.bus.publish_bytes(FEEDBACK.name(node=NODE, device="pi-1"), payload)
        await edge.give_label(1, "dog", by="")
        await edge.give_label(2, "dog")
        assert await edge.recorded(1) == ["waiting"]
        assert len(edge.events) == 1


async def test_g2_unavailable_dataset_loses_nothing(collecting, edge, dataset, tmp_path):
    """While the dataset cannot be written the collector is degraded and sends no receipt."""
    async with collecting():
        dataset.rename(tmp_path / "aside")
        await edge.harvest(1, 2)
        await edge.give_label(1, "dog")
        await eventually(lambda: edge.newest("collector").state == "degraded")
        assert "dataset" in (edge.newest("collector").reason or "")
        assert edge.receipts == []
        (tmp_path / "aside").rename(dataset)
        assert [(await edge.receipt(number)).status for number in (1, 2)] == ["stored", "stored"]
        await edge.recorded(1)
        await eventually(lambda: edge.newest("collector").state == "online")
        assert edge.newest("collector").reason is None
    store = Store.open(dataset)
    assert (store.count("true"), store.count("human_label = 'dog'")) == (2, 1)


async def test_g3_fragments_are_compacted_and_old_versions_removed(collecting, edge, dataset, monkeypatch):
    """Many small commits become few fragments and versions; a tagged version is unchanged."""
    store = Store.open(dataset)
    store.tag("empty")
    clean_up = Table.clean_up
    monkeypatch.setattr(collector, "_FRAGMENTS", 4)
    monkeypatch.setattr(collector, "_CLEAN_UP_S", 0.0)
    monkeypatch.setattr(Table, "clean_up", lambda table: clean_up(table, older_than_s=0))
    async with collecting():
        for number in range(12):
            await edge.harvest(number)
            await edge.receipt(number)
        await edge.harvest(12)  # committed after the maintenance for the sample before
        await edge.receipt(12)
    assert store.table.small_fragments() < 8
    assert len(list((dataset / "_versions").glob("*.manifest"))) < 8
    assert (store.count(), store.count(version="empty")) == (13, 0)


async def test_labels_alone_are_compacted_too(collecting, edge, dataset, monkeypatch):
    """Each batch of labels makes a fragment and a version, with or without samples."""
    monkeypatch.setattr(collector, "_FRAGMENTS", 4)
    async with collecting():
        for number in range(12):
            await edge.give_label(number, "dog")
            await edge.recorded(number + 1)
    store = Store.open(dataset)
    assert store.table.small_fragments() < 8
    assert store.count("human_label = 'dog'") == 12


async def test_the_status_tells_when_labels_cannot_arrive(address):
    """Labels have their own connection; its trouble is in the collector's Status, and its end too."""
    presence = Presence("cloud", "collector")
    samples_bus = Bus(address, "samples", presence=presence)
    labels_bus = Bus(address, "labels", durable=True)
    reporting = asyncio.create_task(collector._report_labels_bus(samples_bus, labels_bus))
    await eventually(lambda: "labels cannot arrive: no connection" in (presence.degraded_reason() or ""))
    async with running(labels_bus):
        await eventually(lambda: presence.degraded_reason() is None)
    reporting.cancel()


async def test_times_and_names_of_labels_are_made_sound(collecting, edge, dataset):
    """A line break is not a class, a time in the future counts as arrival, and a correction wins after it."""
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
        await edge.give_label(1, "dog\r\n", at_ms=2**53)
        assert await edge.recorded(1) == ["stored"]
        await edge.give_label(1, "do\tg")  # refused: it could mean anything
        await edge.give_label(1, "cat ")
        assert await edge.recorded(2) == ["stored", "stored"]
    (row,) = Store.open(dataset).scan(["human_label", "human_at_ms"])
    assert row["human_label"] == "cat"
    assert row["human_at_ms"] < 2**52


async def test_a_camera_labels_its_own_photos_only(collecting, edge, dataset):
    """A label on the topic of another camera is refused, also if it comes before the photo."""
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
        for number in (1, 2):
            await edge.give_label_as("pi-9", number, "dog")
        assert await edge.recorded(2) == ["refused", "waiting"]
        await edge.harvest(2)
        await edge.receipt(2)
    assert Store.open(dataset).count("human_label IS NOT NULL") == 0


async def test_labels_for_photos_that_never_come_are_limited(collecting, edge, dataset, monkeypatch):
    """A camera beyond the limit labels stored photos only; people and other cameras are not held back."""
    monkeypatch.setattr(collector, "WaitingLabels", lambda: WaitingLabels(most=2))
    async with collecting():
        await edge.harvest(1)
        await edge.receipt(1)
        for number in range(11, 13):
            await edge.give_label_as("pi-9", number, "dog")
        assert await edge.recorded(2) == ["waiting"] * 2
        await edge.give_label_as("pi-9", 13, "dog")
        await edge.give_label_as("pi-9", 12, "cat")  # waits already
        await edge.give_label_as("pi-1", 1, "cat")
        await edge.give_label_as("pi-1", 21, "cat")
        assert (await edge.recorded(5))[2:] == ["waiting", "stored", "waiting"]
    assert edge.newest("collector").counters["feedback.excess_dropped"] == 1
    assert Store.open(dataset).count("received_at_ms IS NULL") == 3


async def test_an_imported_photo_is_not_labelled_by_a_camera(collecting, edge, dataset):
    """Who has the same picture knows its id; the label of an import, perhaps of the gold set, stays."""
    said = {"human_label": "cat", "human_by": "import", "human_at_ms": 1}
    facts = {"width": 160, "height": 120, "received_at_ms": 1, "origin": "import", "split": "gold"}
    Store.open(dataset).upsert([Row(photo_id=photo_id(1), image=jpeg(1), **facts, **said)])
    async with collecting():
        await edge.give_label(1, "dog")
        assert await edge.recorded(1) == ["refused"]
    assert Store.open(dataset).count("human_label = 'cat'") == 1


def test_where_devices_prove_who_they_are_they_are_no_people():
    """Feedback on a device's topic counts as the device's, with any `by`; people use the cloud's topic."""
    feedback = Feedback(photo_id=photo_id(1), node=NODE, device="pi-1", label="dog", by="anna")
    assert label_of(feedback, proven=True).annotator == "device"
    assert label_of(feedback).annotator == "human"
    person = Feedback(photo_id=photo_id(1), node=CLOUD, device="operator", label="dog", by="anna")
    label = label_of(person, proven=True)
    assert (label.annotator, label.node, label.device) == ("human", None, None)


def test_a_label_without_a_time_that_comes_again_replaces_nobodys(dataset):
    """Its arrival is not used as the time: a redelivery would replace every correction."""
    store = Store.open(dataset)
    facts = {"width": 160, "height": 120, "received_at_ms": 1}
    store.upsert([Row(photo_id=photo_id(1), image=jpeg(1), **facts)])

    def said(label, by, at_ms=None):
        camera = {"node": CLOUD, "device": "operator"}
        return [label_of(Feedback(photo_id=photo_id(1), label=label, by=by, at_ms=at_ms, **camera))]

    first = said("dog", "bob")
    assert store.label(first) == {photo_id(1): "stored"}
    assert store.label(said("cat", "anna", first[0].at_ms + 1)) == {photo_id(1): "stored"}
    again = [dataclasses.replace(first[0], at_ms=first[0].at_ms + 2)]
    assert store.label(again) == {photo_id(1): "superseded"}
    assert store.count("human_label = 'cat' AND human_by = 'anna'") == 1
    assert store.label(said("cow", "anna")) == {photo_id(1): "stored"}, "who gave it may replace it"


def test_a_devices_own_label_is_used_but_is_no_persons(dataset):
    """It comes before the teacher's, and does not count as a human label."""
    store = Store.open(dataset)
    facts = {"width": 160, "height": 120, "received_at_ms": 1, "node": NODE, "device": "pi-1"}
    store.upsert([Row(photo_id=photo_id(1), image=jpeg(1), lane="hard", edge_label="cat", **facts)])
    feedback = Feedback(photo_id=photo_id(1), node=NODE, device="pi-1", label="dog", by="anna")
    assert store.label([label_of(feedback, proven=True)]) == {photo_id(1): "stored"}
    taught = Label(photo_id=photo_id(1), label="cow", by="teacher", at_ms=9, annotator="teacher")
    store.label([taught])
    assert [(one.label, one.source, one.human) for one in examples(store)] == [("dog", "device", False)]


def test_a_label_without_a_photo_expires(dataset):
    """After the stated time it is removed; one that came later stays, and so do photos."""
    store = Store.open(dataset)
    facts = {"width": 160, "height": 120, "received_at_ms": 1}
    store.upsert([Row(photo_id=photo_id(1), image=jpeg(1), **facts)])
    store.label([Label(photo_id=photo_id(n), label="dog", by="ann", at_ms=5) for n in (1, 2, 3)])
    store.change([photo_id(2)], lambda record: record | {"waiting_since_ms": 1_000})
    assert store.expire_labels(LABEL_WAITS_S) == 1
    left = {str(row["photo_id"]) for row in store.scan(["photo_id"], where="true")}
    assert left == {photo_id(1), photo_id(3)}


async def test_samples_that_wait_are_exported(collecting, edge, monkeypatch):
    """`/metrics` counts the samples without a receipt: those of a commit that runs, and those behind it."""
    going_on, address, upsert = threading.Event(), f"127.0.0.1:{free_port()}", Store.upsert
    monkeypatch.setattr(Store, "upsert", lambda *arguments: going_on.wait(DEADLINE_S) and upsert(*arguments))

    async def page() -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
            return await answer.text()

    async def until(count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not re.search(rf"^gleaner_samples_waiting {count}\.0$", await page(), re.MULTILINE):
                pass

    async with collecting(probes=address, batch=2):
        await edge.harvest(1, 2, 3)
        await until(3)
        going_on.set()
        for number in (1, 2, 3):
            await edge.receipt(number)
        await until(0)
