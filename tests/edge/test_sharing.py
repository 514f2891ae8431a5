"""Several handlers share the photos of one node."""

import pytest
from msgspec import structs

from bus.config import ConfigError
from edge import service
from edge.config import EdgeConfig
from schemas.messages import Feedback, Receipt
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import FEEDBACK, PHOTO, RECEIPT, RELEASE
from tests.conftest import eventually
from tests.edge.test_crashes import table
from tests.nodes import (
    NODE,
    Observer,
    counted,
    device,
    edge_process,
    edge_running,
    enveloped,
    photo,
    photo_id,
)
from tests.serving import release_of


@pytest.fixture
def handlers(config: EdgeConfig) -> tuple[EdgeConfig, EdgeConfig]:
    """Two handlers with one model server: no release reaches them."""
    first = structs.replace(config, shares=True)
    return first, structs.replace(first, name="edge-2", state_dir=f"{config.state_dir}-2")


async def test_handlers_share_the_photos_of_their_node(handlers):
    """Each photo is answered once, and each handler answers some of them."""
    first, second = handlers
    async with Observer(first.broker).watching() as seen:
        async with edge_running(first), edge_running(second):
            await seen.status("online")
            await seen.status("online", "edge-2")
            for number in range(40):
                await seen.send(enveloped(number, photo(number)), f"pi-{number % 4}")
            await eventually(lambda: len(seen.results) >= 40)
        counters = [await counted(seen, config.name) for config in handlers]
    assert sorted(result.photo_id for result in seen.results) == [photo_id(number) for number in range(40)]
    answered = [each["photo.received"] for each in counters]
    assert sum(answered) == 40
    assert min(answered) > 0


async def test_g1_a_killed_handler_leaves_its_photos_to_the_others(handlers, tmp_path):
    """After kill -9 under load every photo is answered, and the other handler gets all new ones."""
    first, second = handlers
    (tmp_path / "second").mkdir()
    topic = PHOTO.name(node=NODE, device="pi-1")
    with edge_process(first, tmp_path) as one, edge_process(second, tmp_path / "second") as other:
        one.start()
        other.start()
        async with Observer(first.broker).watching() as seen:
            for config in handlers:
                await seen.status("online", config.name)
            async with device(seen, tmp_path) as outbox:
                for number in range(80):
                    await outbox.put(photo_id(number), topic, enveloped(number, photo(number)))
                await eventually(lambda: len(seen.final()) > 20)
                other.kill()
                await outbox.wait_until_empty()
            await seen.status("offline", "edge-2")
            for number in range(80, 100):  # sent once each: none may go to the killed handler
                await seen.send(enveloped(number, photo(number)))
            await eventually(lambda: len(seen.final()) == 100)
        one.kill()
    recorded = [
        {name for (name,) in table(config, "SELECT photo_id FROM answer WHERE device = 'pi-1'")}
        for config in handlers
    ]
    assert all(recorded)
    assert recorded[0] | recorded[1] == {photo_id(number) for number in range(100)}


async def test_receipts_and_labels_for_another_handler_change_nothing(handlers):
    """They reach all handlers of a node; none is refunded or removed from the outbox for them."""
    rules = HarvestRules(near_duplicate_s=0, audit_share=0, caps=Caps(per_hour=2))
    first = structs.replace(handlers[0], harvest=rules)
    async with Observer(first.broker).watching() as seen:
        async with edge_running(first):
            await seen.status("online")
            for number in range(2):
                await seen.send(enveloped(number, photo(number)))
                assert (await seen.answer(photo_id(number))).harvest == "auto"
            # Photo 0 was sent again and harvested by the other handler too; photo 9 by the other one only.
            for number, status in ((0, "stored"), (0, "duplicate"), (9, "stored"), (9, "duplicate")):
                receipt = Receipt(photo_id=photo_id(number), node=NODE, status=status, received_at_ms=1)
                await seen.bus.publish(RECEIPT, receipt, node=NODE)
            label = Feedback(photo_id=photo_id(9), node=NODE, device="pi-1", label="dog", by="ann")
            await seen.bus.publish(FEEDBACK, label, node=NODE, device="pi-1")
            await eventually(lambda: {sample.photo_id for sample in seen.samples[-3:]} == {photo_id(1)})
            await seen.send(enveloped(2, photo(2)))
            assert (await seen.answer(photo_id(2))).harvest == "cap-per-hour"
        counters = await counted(seen)
    assert (counters["sample.answered"], counters["sample.answered_again"]) == (1, 3)
    assert counters["feedback.unmatched"] == 1


async def test_each_handler_processes_a_release(handlers, tmp_path):
    """A release reaches every handler of the node, and each publishes events under its own name."""
    first, second = handlers
    (tmp_path / "bundle.tar").write_bytes(b"of another model")
    async with (
        Observer(first.broker).watching() as seen,
        edge_running(first),
        edge_running(second),
    ):
        release = release_of(tmp_path / "bundle.tar", 2, model="birds")
        await seen.bus.publish(RELEASE, release, node=NODE)
        await eventually(lambda: len(seen.events) >= 2)
    events = sorted((event.name, event.event) for event in seen.events)
    assert events == [("edge", "model.refused"), ("edge-2", "model.refused")]


async def test_an_additional_handler_has_to_share(config):
    """Otherwise it would answer each photo a second time."""
    with pytest.raises(ConfigError, match="set shares = true"):
        await service.run(structs.replace(config, name="edge-2"))
