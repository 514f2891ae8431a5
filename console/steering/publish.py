"""Publish policies and orders to rollouts, each proven by its echo, over a separate connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.session import connected
from cloud.rollout.policy_update import setting_rules, update_policies
from cloud.rollout.steering import publish_order
from console.context import Console
from schemas.errors import GleanerError, TransientError
from schemas.messages import Policy, Steering
from schemas.policy_rules import HarvestRules
from schemas.topics import POLICY, STEERING


async def set_policy(console: Console, node: str, rules: HarvestRules) -> None:
    """Publish the policy of a node, as `gleaner cloud policy --set` does.

    Raises:
        BrokerConnectionError: Not connected, or the broker does not let this console write it.
    """
    bus = _bus(console, "policy")
    policies = bus.subscribe(POLICY, node=node)
    known = {node: console.live.policies.get(node, Policy(node=node))}
    async with _connected(console, bus):
        async for _ in update_policies(bus, policies, [node], known, setting_rules(rules, "set")):
            pass


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
        raise _first(found) from None


def _first(group: BaseExceptionGroup[GleanerError]) -> GleanerError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, GleanerError) else TransientError(str(error))
