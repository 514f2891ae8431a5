"""Labels sent at the node harvest photos, on a real broker."""

import asyncio

from msgspec import structs

from edge.harvest.feedback import LabelQueue
from schemas.lanes import FEEDBACK as FEEDBACK_LANE
from schemas.messages import Feedback
from schemas.policy_rules import HarvestRules
from schemas.topics import FEEDBACK
from tests.conftest import eventually
from tests.nodes import NODE, Observer, counted, edge_running, enveloped, photo, photo_id


def label(number: int, device: str = "pi-1") -> Feedback:
    return Feedback(photo_id=photo_id(number), node=NODE, device=device, label="dog", by="ann")


async def test_labels_of_one_device_do_not_push_out_those_of_others():
    """Beyond the bound the device with most labels loses its newest, and devices take turns."""
    queue = LabelQueue(4)
    kept = [queue.put(label(number, "busy")) for number in range(6)]
    assert kept == [True] * 4 + [False] * 2
    assert not queue.put(label(7, "calm"))  # the newest of the busy one was dropped for it
    taken = [await queue.get() for _ in range(4)]
    assert [(one.device, one.photo_id) for one in taken] == [
        ("busy", photo_id(0)),
        ("calm", photo_id(7)),
        ("busy", photo_id(1)),
        ("busy", photo_id(2)),
    ]
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert queue.put(label(8, "calm"))
    assert (await getting).photo_id == photo_id(8)


async def test_a_label_harvests_a_photo_that_was_refused(config):
    """A labelled near-duplicate becomes a sample; unknown photos and malformed labels are counted."""
    config = structs.replace(config, harvest=HarvestRules(audit_share=0))
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            for number in (1, 2):
                await seen.send(enveloped(number, photo(7)))
                harvest = (await seen.answer(photo_id(number))).harvest
            assert harvest == "near-duplicate"
            await seen.bus.publish_bytes(FEEDBACK.name(node=NODE, device="pi-1"), b"no label")
            for one in (label(1), label(2, "pi-2"), label(2)):
                await seen.bus.publish(FEEDBACK, one, node=NODE, device=one.device)
            await eventually(lambda: any(sample.lane == FEEDBACK_LANE for sample in seen.samples))
        counters = await counted(seen)
    sample = next(sample for sample in seen.samples if sample.lane == FEEDBACK_LANE)
    assert (sample.photo_id, sample.label, sample.image) == (photo_id(2), "cat", photo(7))
    assert (counters["harvest.feedback"], counters["feedback.malformed"]) == (1, 1)
    assert counters["feedback.unmatched"] == 2
    assert counters["harvest.refused_near-duplicate"] == 1
