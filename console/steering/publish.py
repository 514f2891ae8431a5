"""Publish policies and orders to rollouts, each proven by its echo, over a separate connection."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import now_ms
from bus.mqtt.session import connected
from cloud.dataset.curation import Selection
from cloud.rollout.forget_orders import publish_orders, reach
from cloud.rollout.policy_update import setting_rules, update_policies
from cloud.rollout.steering import publish_order
from console.context import Console
from schemas.errors import GleanerError, first_cause
from schemas.messages import Policy, Steering
from schemas.policy_rules import HarvestRules
from schemas.topics import FORGET, HANDLERS, POLICY, STEERING


async def set_policy(
    console: Console, node: str, rules: HarvestRules, groups: Mapping[str, str] | None = None
) -> None:
    """Publish the policy of a node, as `gleaner cloud policy --set` and `--group` do.

    Args:
        console: Knows the policy so far.
        node: The edge node.
        rules: All harvest rules.
        groups: All groups of devices, by name or pattern; None leaves them.

    Raises:
        BrokerConnectionError: Not connected, or the broker does not let this console write it.
    """
    bus = _bus(console, "policy")
    policies = bus.subscribe(POLICY, node=node)
    known = {node: console.live.policies.get(node, Policy(node=node))}
    async with _connected(console, bus):
        async for _ in update_policies(bus, policies, [node], known, setting_rules(rules, "set", groups)):
            pass


async def forget_at_edges(console: Console, photo_id: str) -> None:
    """Order the edge that a photo came from to forget it, as `gleaner cloud forget` does.

    Raises:
        BrokerConnectionError: Not connected, or the broker does not let this console write it.
    """
    chosen = Selection(photos=[photo_id])
    meant = await asyncio.to_thread(reach, console.store, chosen, [photo_id], now_ms())
    statuses = list(console.live.statuses.values())
    nodes = {status.node for status in statuses if status.name in HANDLERS} & meant.by_node.keys()
    if not nodes:
        return
    bus = _bus(console, "forget")
    echoes = bus.subscribe(FORGET)
    async with _connected(console, bus):
        known = console.live.forgets
        await publish_orders(bus, echoes, meant, nodes=nodes, statuses=statuses, known=known)


async def order(console: Console, order: Steering) -> None:
    """Publish an order to the running rollout, as `gleaner cloud steer` does.

    Raises:
        BrokerConnectionError: Not connected, or the broker does not let this console write it.
    """
    bus = _bus(console, "steer")
    echoes = bus.subscribe(STEERING)
    async with _connected(console, bus):
        await publish_order(bus, echoes, order)


def _bus(console: Console, purpose: str) -> Bus:
    client_id = transient_client_id(f"{console.config.name}-{purpose}")
    return Bus(console.config.broker, client_id, password=console.password)


@asynccontextmanager
async def _connected(console: Console, bus: Bus) -> AsyncIterator[None]:
    try:
        async with connected(bus, console.config.broker):
            yield
    except BaseExceptionGroup as group:
        # The connection runs in a separate task, whose errors come in a group.
        found, rest = group.split(GleanerError)
        if rest is not None or found is None:
            raise
        raise first_cause(found) from None
