"""Queues and refusals, read from statuses: plain functions."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schemas.messages import Status
from schemas.topics import CLOUD, HANDLERS, is_reserved

_ENTERED, _LEFT = (
    ("accepted", "restored"),
    ("answered", "dropped_oldest", "discarded", "set_aside", "damaged"),
)
# Whole words: `round.finished` does not count a photo that was shed.
_REFUSED = re.compile(
    r"(?:^|[._])(?:rejected|refused|dropped|shed|misnamed|malformed|overflowed|dead_lettered)(?:$|[._])"
)
MAX_ROWS = 100
"""Most components and devices that are shown at once; the others are found by a part of their name."""
SILENT_S = 60
"""A component without a status for this many seconds is silent: a running one publishes every 15 s."""


class Component(NamedTuple):
    """A component or a device, as its last status describes it.

    Attributes:
        status: The last one.
        state: `online`, `degraded`, `offline`, or `silent` if its status is online but old.
        waiting: Messages in each of its outboxes.
        refused: Messages that it did not accept since it started, by reason, the most frequent first.
        offset_s: Of a device: by how much its clock is behind its edge's; None if it is right.
    """

    status: Status
    state: str
    waiting: dict[str, int]
    refused: dict[str, int]
    offset_s: float | None


class NodeGroup(NamedTuple):
    """What runs on a node: its own components, then its devices.

    Attributes:
        node: Its name.
        components: Its own, the edge first.
        devices: By name.
        hidden: How many of both were found and are not shown.
    """

    node: str
    components: list[Component]
    devices: list[Component]
    hidden: int = 0


def fleet(statuses: Iterable[Status], now_ms: int) -> list[NodeGroup]:
    """Group the components by node; the cloud comes first.

    Args:
        statuses: The last one of each component.
        now_ms: The present, UTC.
    """
    by_node: dict[str, list[Status]] = {}
    for status in statuses:
        by_node.setdefault(status.node, []).append(status)
    nodes = sorted(by_node, key=lambda node: (node != CLOUD, node))
    return [_group(node, by_node[node], now_ms) for node in nodes]


def found(groups: Iterable[NodeGroup], text: str = "", state: str = "") -> list[NodeGroup]:
    """Return what has a text in its own name or its node's, in any case, and is in a state; empty for all."""
    part = text.strip().lower()

    def matching(node: str, components: list[Component]) -> list[Component]:
        return [
            one
            for one in components
            if (part in node or part in one.status.name) and state in ("", one.state)
        ]

    kept = [
        NodeGroup(group.node, matching(group.node, group.components), matching(group.node, group.devices))
        for group in groups
    ]
    return [group for group in kept if group.components or group.devices]


def shown(groups: Iterable[NodeGroup], most: int = MAX_ROWS) -> tuple[list[NodeGroup], int]:
    """Return the first groups, with a bounded number of rows, and how many nodes are left out."""
    kept, left, hidden = [], most, 0
    for group in groups:
        if not left:
            hidden += 1
            continue
        components, devices = group.components[:left], group.devices[: max(0, left - len(group.components))]
        rows = len(components) + len(devices)
        beyond = len(group.components) + len(group.devices) - rows
        kept.append(NodeGroup(group.node, components, devices, beyond))
        left -= rows
    return kept, hidden


def waiting_messages(counters: Mapping[str, int]) -> dict[str, int]:
    """Return how many messages each outbox holds: what came in less what left."""
    names = [name.rpartition(".")[0] for name in counters if name.endswith((".accepted", ".restored"))]
    found = {}
    for name in sorted(set(names)):
        entered = sum(counters.get(f"{name}.{part}", 0) for part in _ENTERED)
        left = sum(counters.get(f"{name}.{part}", 0) for part in _LEFT)
        # What is damaged may not have been counted in: never less than nothing.
        found[name] = max(0, entered - left)
    return found


def refusals(counters: Mapping[str, int]) -> dict[str, int]:
    """Return the counters of messages that were not accepted, without those of the harvest's rules."""
    found = {
        name: count
        for name, count in counters.items()
        if count and not name.startswith("harvest.") and _REFUSED.search(name)
    }
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _group(node: str, statuses: list[Status], now_ms: int) -> NodeGroup:
    offsets = {name: s for one in statuses if one.name in HANDLERS for name, s in one.clock_offsets_s.items()}
    found = [_component(one, offsets.get(one.name), now_ms) for one in sorted(statuses, key=_rank)]
    return NodeGroup(
        node,
        [one for one in found if _is_own(one.status)],
        [one for one in found if not _is_own(one.status)],
    )


def _component(status: Status, offset_s: float | None, now_ms: int) -> Component:
    silent = status.state == "online" and now_ms - status.at_ms > SILENT_S * 1000
    return Component(
        status,
        "silent" if silent else status.state,
        waiting_messages(status.counters),
        refusals(status.counters),
        offset_s,
    )


def _is_own(status: Status) -> bool:
    return status.node == CLOUD or is_reserved(status.name) or status.name in HANDLERS


def _rank(status: Status) -> tuple[bool, str]:
    return status.name not in HANDLERS, status.name
