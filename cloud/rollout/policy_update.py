"""Change the harvest policies of edge nodes, for the command and the retraining loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Subscription
from cloud.dataset.store import Store
from cloud.evaluation.live_accuracy import audited
from cloud.registry.registry import Registry, newest_promoted
from cloud.rollout.harvest_policy import TARGET, helped_at, revised
from schemas.errors import PermanentError
from schemas.messages import HarvestRules, Policy
from schemas.topics import POLICY

POLICY_WAIT_S = 2.0
"""How long retained policies are waited for: a node without one has none to wait for."""

Change = Callable[[Policy], tuple[HarvestRules, list[str]]]
"""From the policy in force to new rules and the reason for each change; no reason means no change."""


def tuning(dataset: str, registry: Registry, target: float = TARGET) -> Change:
    """Return the change that the newest card and the audits of the version in service call for.

    Args:
        dataset: Folder or URL of the table.
        registry: Where the cards are.
        target: Share of labels in the lane auto that must be right.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    store, lineage = Store.open(dataset, create=False), registry.cards()
    if not lineage:
        raise PermanentError(f"no version in {registry.folder}", hint="train one with 'gleaner cloud train'")
    serving = newest_promoted(lineage)
    audits = audited(store, serving.version) if serving is not None else []

    def change(policy: Policy) -> tuple[HarvestRules, list[str]]:
        helped = helped_at(lineage, policy.issued_at_ms)
        return revised(policy.harvest, audits, helps=lineage[-1].auto, helped=helped, target=target)

    return change


async def update_policies(
    bus: Bus, policies: Subscription[Policy], nodes: Collection[str], known: dict[str, Policy], change: Change
) -> AsyncIterator[tuple[str, list[str]]]:
    """Publish the policies that change; yield each node with the reasons, none if nothing changed.

    Args:
        bus: Connected.
        policies: Subscription to all policies, made before the bus connected.
        nodes: Which edge nodes.
        known: Policies in force, by node; a node without one gets the default changed.
        change: From the policy in force to the new rules.

    Raises:
        BrokerConnectionError: The broker went away, or refuses it.
    """
    for node in nodes:
        rules, reasons = change(known.get(node, Policy(node=node)))
        if reasons:
            changed = Policy(node=node, harvest=rules, issued_at_ms=now_ms())
            await publish_confirmed(bus, policies, POLICY, changed, node=node)
        yield node, reasons


async def retained_policies(
    policies: Subscription[Policy], nodes: Collection[str], wait_s: float = POLICY_WAIT_S
) -> dict[str, Policy]:
    """Return by node the policies that the broker retains; it sends nothing for a node without one.

    Raises:
        CodecError: The retained message of one of the nodes is no policy.
    """
    found: dict[str, Policy] = {}
    try:
        async with asyncio.timeout(wait_s):
            async for delivery in policies:
                delivery.ack()
                if (node := delivery.names["node"]) in nodes:
                    found[node] = delivery.message()
                if len(found) == len(nodes):
                    break
    except TimeoutError:
        pass
    return found
