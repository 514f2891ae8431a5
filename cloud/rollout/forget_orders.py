"""Order edge nodes to forget photos; the broker retains the order until the node confirms it."""

import asyncio
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Delivery, RawMessage, Subscription
from cloud.dataset.curation import Selection
from cloud.dataset.store import Store
from schemas.codec import decode
from schemas.errors import CodecError, TransientError
from schemas.messages import MAX_FORGET_IDS, Forget, Status
from schemas.topics import FORGET, HANDLERS

_ROWS_AT_ONCE = 1000
_MOST_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Reach:
    """What a command forgets, in terms that an edge knows.

    Attributes:
        by_node: Ids of the chosen photos that came from a node, newest first.
        everything: Whether all photos of a camera, a node or all nodes up to a time are chosen, those in
            transit too.
        node: That `everything` is about, None for all.
        device: That `everything` is about, None for all of the node.
        before_ms: The time, UTC.
    """

    by_node: Mapping[str, Sequence[str]] = field(default_factory=dict)
    everything: bool = False
    node: str | None = None
    device: str | None = None
    before_ms: int = 0

    @property
    def is_local(self) -> bool:
        """Whether no edge ever had one of the photos."""
        return not (self.everything or self.by_node)

    @property
    def words(self) -> str:
        """What edges are to forget, for the change log."""
        count = sum(map(len, self.by_node.values()))
        if not self.everything:
            return f"{count} photos by id"
        return f"all of {self.node or '*'}/{self.device or '*'} before {self.before_ms} ms, {count} by id"

    def nodes(self, known: Iterable[str]) -> list[str]:
        """Return the nodes that need the order, given those that have reported."""
        everywhere = set(known) if self.everything and self.node is None else {self.node} - {None}
        return sorted({*self.by_node, *(node for node in everywhere if self.everything and node)})


def reach(store: Store, selection: Selection, photo_ids: Sequence[str], now: int) -> Reach:
    """Return what a selection means for the edges.

    Args:
        store: The dataset.
        selection: What was chosen.
        photo_ids: The photos in the dataset that it chose.
        now: UTC, milliseconds since 1970.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    dated: list[tuple[int, str, str]] = []
    for start in range(0, len(photo_ids), _ROWS_AT_ONCE):
        found = store.find(photo_ids[start : start + _ROWS_AT_ONCE], ["node", "received_at_ms"])
        dated += [
            (int(str(row["received_at_ms"])), str(row["node"]), photo_id)
            for photo_id, row in found.items()
            if row["node"] is not None
        ]
    by_node: dict[str, list[str]] = {}
    for _, node, photo_id in sorted(dated, reverse=True):
        by_node.setdefault(node, []).append(photo_id)
    camera = Selection(node=selection.node, device=selection.device, before_ms=selection.before_ms)
    if selection != camera:
        return Reach(by_node)
    before_ms = now if selection.before_ms is None else min(now, selection.before_ms)
    return Reach(by_node, everything=True, node=selection.node, device=selection.device, before_ms=before_ms)


def order_for(node: str, reach: Reach, pending: Forget | None, now: int) -> Forget:
    """Return the order for a node: what is wanted now, and what it has not confirmed.

    Args:
        node: The edge node.
        reach: What is wanted now.
        pending: The retained order, None if the node confirmed it.
        now: UTC, milliseconds since 1970.
    """
    before = pending or Forget(node=node, order_id="0" * 32, at_ms=now)
    ids = list(dict.fromkeys([*reach.by_node.get(node, ()), *before.photo_ids]))[:MAX_FORGET_IDS]
    devices, before_ms = dict(before.devices), before.before_ms
    if reach.everything and reach.node in {None, node}:
        if reach.device is None:
            before_ms = max(before_ms or 0, reach.before_ms)
        else:
            devices[reach.device] = max(devices.get(reach.device, 0), reach.before_ms)
    return structs.replace(
        before,
        order_id=secrets.token_hex(16),
        photo_ids=ids,
        devices=devices,
        before_ms=before_ms,
        at_ms=now,
    )


def unconfirmed(order: Forget, statuses: Iterable[Status]) -> list[Status]:
    """Return the newest statuses of the handlers of a node that have not carried out its order."""
    handlers = [status for status in statuses if status.node == order.node and status.name in HANDLERS]
    return [status for status in handlers if status.forgotten != order.order_id]


def read_orders(messages: "asyncio.Queue[RawMessage]") -> dict[str, Forget]:
    """Return by node the orders among the messages that have arrived; broken and cleared ones are none."""
    found: dict[str, Forget] = {}
    while not messages.empty():
        message = messages.get_nowait()
        names = FORGET.match(message.topic)
        if names is None:
            continue
        found.pop(names["node"], None)
        try:
            if message.payload:
                found[names["node"]] = decode(FORGET, message.payload, names)
        except CodecError:
            continue  # it is replaced by the next order
    return found


async def publish_orders(
    bus: Bus,
    echoes: Subscription[Forget],
    reach: Reach,
    *,
    nodes: Collection[str],
    statuses: Sequence[Status],
    known: Mapping[str, Forget],
) -> list[Forget]:
    """Publish an order to each node; return the orders.

    Args:
        bus: Connected, with the rights of the rollout or the console.
        echoes: Subscription to all orders, made before the bus connected.
        reach: What is wanted.
        nodes: The edge nodes.
        statuses: Of all components.
        known: The retained orders, by node.

    Raises:
        BrokerConnectionError: The connection was lost.
        PublishRefusedError: The client may not write the topic.
        TransientError: Others give orders to a node again and again.
    """
    newest = dict(known)
    orders = []
    for node in nodes:
        pending = newest.get(node)
        if pending is not None and not unconfirmed(pending, statuses):
            pending = None
        for _ in range(_MOST_ATTEMPTS):
            order = order_for(node, reach, pending, now_ms())
            before = await publish_confirmed(bus, echoes, FORGET, order, node=node)
            # Between reading and writing, somebody else may have published an order, which ours replaced at
            # the broker. Of all who do that at once the last one sees the others' orders before its own.
            missed = _missed(before, newest, order)
            newest |= {name: one[-1] for name, one in missed.items()}
            if node not in missed:
                break
            pending = reduce(_joined, missed[node], order)
        else:
            raise TransientError(
                f"others are giving orders to {node} at the same time", hint="try it again in a moment"
            )
        newest[node] = order
        orders.append(order)
    return orders


def _missed(
    before: Iterable[Delivery[Forget]], known: Mapping[str, Forget], own: Forget
) -> dict[str, list[Forget]]:
    """Return by node the orders that are neither known nor part of ours.

    Broken and cleared ones are none.
    """
    found: dict[str, list[Forget]] = {}
    for delivery in before:
        try:
            order = delivery.message() if delivery.payload else None
        except CodecError:
            continue
        if order is None or order == known.get(order.node):
            continue
        if order.node != own.node or not _is_part(order, own):
            found.setdefault(order.node, []).append(order)
    return found


def _is_part(order: Forget, whole: Forget) -> bool:
    """Return whether an order is about nothing that another is not about; of too many ids some are left."""
    ids = len(whole.photo_ids) >= MAX_FORGET_IDS or set(order.photo_ids) <= set(whole.photo_ids)
    devices = all(whole.devices.get(device, 0) >= time for device, time in order.devices.items())
    return ids and devices and (whole.before_ms or 0) >= (order.before_ms or 0)


def _joined(order: Forget, other: Forget) -> Forget:
    """Return an order for what either of two is about."""
    times = [time for time in (order.before_ms, other.before_ms) if time is not None]
    devices = {
        device: max(one.get(device, 0) for one in (order.devices, other.devices))
        for device in {*order.devices, *other.devices}
    }
    ids = list(dict.fromkeys([*order.photo_ids, *other.photo_ids]))
    return structs.replace(order, photo_ids=ids, devices=devices, before_ms=max(times, default=None))
