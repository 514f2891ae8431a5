"""Rules of cloud/rollout/forget_orders.py: what a command means for each node, until the node confirms it."""

import asyncio

from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.subscription import RawMessage
from cloud.dataset.curation import Selection
from cloud.dataset.store import Row, Store
from cloud.rollout.forget_orders import Reach, order_for, publish_orders, reach, read_orders, unconfirmed
from schemas.codec import encode
from schemas.messages import MAX_FORGET_IDS, Forget, Status
from schemas.topics import FORGET
from tests.conftest import DEADLINE_S, jpeg, running
from tests.nodes import photo_id

NOW = 1_800_000_000_000


def stored(folder, *nodes: str | None) -> Store:
    """Return a dataset with a photo of each node, the later ones newer."""
    store = Store.open(folder / "dataset")
    store.upsert(
        [
            Row(photo_id=photo_id(number), image=jpeg(), width=1, height=1, node=node, received_at_ms=number)
            for number, node in enumerate(nodes)
        ]
    )
    return store


def test_photos_by_id_go_to_the_nodes_that_they_came_from(tmp_path):
    """The newest first; an imported photo concerns no edge."""
    store = stored(tmp_path, "edge-1", "edge-2", "edge-1", None)
    ids = [photo_id(number) for number in range(4)]
    meant = reach(store, Selection(photos=ids), ids, NOW)
    assert meant.by_node == {"edge-1": [ids[2], ids[0]], "edge-2": [ids[1]]}
    assert meant.nodes(["edge-3"]) == ["edge-1", "edge-2"]
    assert reach(store, Selection(photos=[ids[3]]), [ids[3]], NOW).is_local
    assert not reach(store, Selection(label="cat", before_ms=5), ids, NOW).everything


def test_a_camera_or_a_time_also_means_what_the_cloud_has_not_seen(tmp_path):
    """A device's node, or every node that has reported, up to now or to the given time."""
    store = stored(tmp_path)
    camera = reach(store, Selection(node="edge-1", device="pi-1"), [], NOW)
    assert camera.nodes(["edge-1", "edge-2"]) == ["edge-1"]
    assert order_for("edge-1", camera, None, NOW).devices == {"pi-1": NOW}
    everywhere = reach(store, Selection(before_ms=7), [], NOW)
    assert everywhere.nodes(["edge-1", "edge-2"]) == ["edge-1", "edge-2"]
    assert order_for("edge-2", everywhere, None, NOW).before_ms == 7
    assert reach(store, Selection(before_ms=2 * NOW), [], NOW).before_ms == NOW


def test_an_order_keeps_what_the_node_has_not_confirmed():
    """Ids, devices and times are joined under a new id; of too many ids the newest stay."""
    first = order_for("edge-1", Reach({"edge-1": ["1" * 32]}), None, NOW)
    camera = Reach({}, everything=True, node="edge-1", device="pi-1", before_ms=NOW)
    second = order_for("edge-1", camera, first, NOW + 1)
    third = order_for("edge-1", Reach({}, everything=True, before_ms=5), second, NOW + 2)
    assert (third.photo_ids, third.devices, third.before_ms) == (["1" * 32], {"pi-1": NOW}, 5)
    assert len({first.order_id, second.order_id, third.order_id}) == 3
    many = [photo_id(number) for number in range(MAX_FORGET_IDS)]
    full = order_for("edge-1", Reach({"edge-1": many}), third, NOW)
    assert full.photo_ids == many


def test_the_largest_order_is_a_message_that_edges_read():
    """The most ids, and the most devices with the longest names, stay below the codec's limit."""
    devices = {f"{number:04}".ljust(63, "x"): NOW for number in range(1024)}
    ids = [photo_id(number) for number in range(MAX_FORGET_IDS)]
    order = Forget(node="n" * 63, order_id="0" * 32, photo_ids=ids, devices=devices, before_ms=NOW, at_ms=NOW)
    payload = encode(FORGET, order)
    messages: asyncio.Queue[RawMessage] = asyncio.Queue()
    messages.put_nowait(RawMessage(FORGET.name(node=order.node), payload, retained=True))
    assert read_orders(messages) == {order.node: order}


def test_a_node_has_confirmed_when_all_its_handlers_have():
    """By the id of the newest order in their Status; other nodes and devices do not count."""
    order = Forget(node="edge-1", order_id="1" * 32, at_ms=NOW)
    status = Status(node="edge-1", name="edge", state="online", at_ms=1, since_ms=1, software="1", run_id="1")
    second = structs.replace(status, name="edge-2", forgotten=order.order_id)
    others = [structs.replace(status, name="pi-1"), structs.replace(status, node="edge-2")]
    assert unconfirmed(order, [status, second, *others]) == [status]
    assert unconfirmed(order, [structs.replace(status, forgotten=order.order_id), second, *others]) == []


async def test_of_orders_at_the_same_moment_none_is_lost(address):
    """Each command read what was retained before the others published: the last order has all of them."""
    at_once = 4
    buses = [Bus(address, transient_client_id("forget")) for _ in range(at_once)]
    everything = buses[0].subscribe_raw(FORGET.filter)
    echoes = [bus.subscribe(FORGET) for bus in buses]
    meant = [Reach({"edge-1": [photo_id(number)]}) for number in range(at_once - 1)]
    meant.append(Reach({}, everything=True, node="edge-1", device="pi-1", before_ms=NOW))
    async with running(*buses):
        publishing = (
            publish_orders(bus, echo, one, nodes=["edge-1"], statuses=[], known={})
            for bus, echo, one in zip(buses, echoes, meant, strict=True)
        )
        await asyncio.gather(*publishing)
        # In turn, and with what this one read long ago.
        last = Reach({"edge-1": ["f" * 32]})
        await publish_orders(buses[1], echoes[1], last, nodes=["edge-1"], statuses=[], known={})
        await buses[0].publish(FORGET, Forget(node="last", order_id="0" * 32, at_ms=NOW), node="last")
        messages: asyncio.Queue[RawMessage] = asyncio.Queue()
        async with asyncio.timeout(DEADLINE_S):
            while (message := await everything.get()).topic != FORGET.name(node="last"):
                messages.put_nowait(message)
    order = read_orders(messages)["edge-1"]
    assert set(order.photo_ids) == {*map(photo_id, range(at_once - 1)), "f" * 32}
    assert order.devices == {"pi-1": NOW}
