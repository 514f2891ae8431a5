"""Change the harvest policies of edge nodes, for the command and the retraining loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Subscription
from cloud.dataset.store import Store
from cloud.evaluation.live_accuracy import audited_photos
from cloud.registry.registry import Registry, newest_promoted
from cloud.rollout.harvest_policy import (
    TARGET_PRECISION,
    auto_helped_at,
    raise_audit_share,
    restore_audit_share,
    tune_rules,
)
from schemas.errors import PermanentError
from schemas.messages import HarvestRules, Policy
from schemas.topics import POLICY

POLICY_WAIT_S = 2.0
"""How long to wait for retained policies: the broker sends nothing for a node without one."""

Change = Callable[[Policy], tuple[HarvestRules, list[str]]]
"""From the current policy to new rules and the reason for each change; no reason means no change."""


def tuning(dataset: str, registry: Registry, target: float = TARGET_PRECISION) -> Change:
    """Return the change by the newest model card and the audits of the version in service.

    Args:
        dataset: Folder or URL of the table.
        registry: Where the cards are.
        target: Wanted share of correct labels in the lane auto.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    store, lineage = Store.open(dataset, create=False), registry.cards()
    if not lineage:
        raise PermanentError(f"no version in {registry.folder}", hint="train one with 'gleaner cloud train'")
    serving = newest_promoted(lineage)
    audits = audited_photos(store, serving.version) if serving is not None else []

    def change(policy: Policy) -> tuple[HarvestRules, list[str]]:
        helped_before = auto_helped_at(lineage, policy.issued_at_ms)
        rules, restored = restore_audit_share(policy.harvest)
        tuned, reasons = tune_rules(
            rules,
            audits,
            auto_helps=lineage[-1].auto,
            auto_helped_before=helped_before,
            target=target,
        )
        return tuned, restored + reasons

    return change


def raising_audits(share: float) -> Change:
    """Return the change during a drift alarm: an audit share of at least `share`."""
    return lambda policy: raise_audit_share(policy.harvest, share)


async def update_policies(
    bus: Bus, policies: Subscription[Policy], nodes: Collection[str], known: dict[str, Policy], change: Change
) -> AsyncIterator[tuple[str, list[str]]]:
    """Publish the policies that change; yield each node with the reasons, none if nothing changed.

    Args:
        bus: Connected.
        policies: Subscription to all policies, made before the bus connected.
        nodes: The edge nodes.
        known: Current policies, by node; the default policy is changed for a node without one.
        change: From the current policy to the new rules.

    Raises:
        BrokerConnectionError: The connection was lost, or the broker rejects the policy.
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
    """Return by node the policies that the broker retains.

    Raises:
        CodecError: The retained message of one of the nodes is not a valid policy.
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
        pass  # the normal end if a node has no policy
    return found
