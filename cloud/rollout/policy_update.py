"""Change the policies of edge nodes, for the command and the retraining loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping

from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Delivery, Subscription
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
from schemas.errors import CodecError, PermanentError
from schemas.groups.membership import EACH
from schemas.messages import Policy
from schemas.policy_rules import HarvestRules, Vote
from schemas.topics import POLICY

POLICY_WAIT_S = 2.0
"""How long to wait for retained policies: the broker sends nothing for a node without one."""

Change = Callable[[Policy], tuple[Policy, list[str]]]
"""From the current policy to a new one and the reason for each change; no reason means no change."""


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

    def change(policy: Policy) -> tuple[Policy, list[str]]:
        helped_before = auto_helped_at(lineage, policy.issued_at_ms)
        rules, restored = restore_audit_share(policy.harvest)
        tuned, reasons = tune_rules(
            rules,
            audits,
            auto_helps=lineage[-1].auto,
            auto_helped_before=helped_before,
            target=target,
        )
        return structs.replace(policy, harvest=tuned), restored + reasons

    return change


def raising_audits(share: float) -> Change:
    """Return the change during a drift alarm: an audit share of at least `share`."""
    return changing_rules(lambda rules: raise_audit_share(rules, share))


def setting_rules(rules: HarvestRules, reason: str, groups: Mapping[str, str] | None = None) -> Change:
    """Return the change that sets all harvest rules; the votes stay, and the groups unless some are given."""

    def change(policy: Policy) -> tuple[Policy, list[str]]:
        kept = policy.groups if groups is None else dict(groups)
        return structs.replace(policy, harvest=rules, groups=kept), [reason]

    return change


def changing_rules(decide: Callable[[HarvestRules], tuple[HarvestRules, list[str]]]) -> Change:
    """Return the change of the harvest rules alone, by a function that also gives the reasons."""

    def change(policy: Policy) -> tuple[Policy, list[str]]:
        rules, reasons = decide(policy.harvest)
        return structs.replace(policy, harvest=rules), reasons

    return change


def setting_votes(votes: Mapping[str | None, Vote]) -> Change:
    """Return the change that sets votes, by device; None stands for every device without its own.

    A vote for every device removes those of single devices that are not among `votes`.
    """

    def change(policy: Policy) -> tuple[Policy, list[str]]:
        kept = {} if None in votes else policy.votes
        by_device = {**kept, **{device: vote for device, vote in votes.items() if device is not None}}
        reasons = [f"{device or 'all devices'}: {vote_text(vote)}" for device, vote in votes.items()]
        return structs.replace(policy, vote=votes.get(None, policy.vote), votes=by_device), reasons

    return change


def setting_groups(groups: Mapping[str, str | None]) -> Change:
    """Return the change that sets groups of devices, by name or pattern; None takes a pattern out."""

    def change(policy: Policy) -> tuple[Policy, list[str]]:
        changed = {**policy.groups, **groups}
        kept = {pattern: group for pattern, group in changed.items() if group is not None}
        if kept == policy.groups:
            return policy, []
        reasons = [f"{pattern}: {group_text(group)}" for pattern, group in groups.items()]
        return structs.replace(policy, groups=kept), reasons

    return change


def group_text(group: str | None) -> str:
    """Return the group of a pattern in words."""
    if group is None:
        return "no group"
    return "each device is a group of its own" if group == EACH else f"group {group}"


def vote_text(vote: Vote) -> str:
    """Return a vote in words."""
    if vote.frames == 1:
        return "no vote, each answer counts"
    return f"an answer counts if {vote.agree} of the latest {vote.frames} agree"


async def update_policies(
    bus: Bus, policies: Subscription[Policy], nodes: Collection[str], known: dict[str, Policy], change: Change
) -> AsyncIterator[tuple[str, list[str]]]:
    """Publish the policies that change; yield each node with the reasons, none if nothing changed.

    Args:
        bus: Connected.
        policies: Subscription to all policies, made before the bus connected.
        nodes: The edge nodes.
        known: Current policies, by node; the default policy is changed for a node without one.
        change: From the current policy to the new one.

    Raises:
        BrokerConnectionError: The connection was lost, or the broker rejects the policy.
    """
    for node in nodes:
        policy = known.get(node, Policy(node=node))
        changed, reasons = change(policy)
        if reasons:
            changed = structs.replace(changed, issued_at_ms=now_ms())
            await publish_confirmed(bus, policies, POLICY, changed, node=node)
        yield node, reasons


async def retained_policies(
    policies: Subscription[Policy],
    nodes: Collection[str],
    wait_s: float = POLICY_WAIT_S,
    *,
    broken_is_none: bool = False,
) -> dict[str, Policy]:
    """Return by node the policies that the broker retains.

    Args:
        policies: Subscription to all policies, made before the bus connected.
        nodes: The edge nodes.
        wait_s: How long to wait for them, in seconds.
        broken_is_none: Ignore an invalid policy, because it will be replaced.

    Raises:
        CodecError: The retained message of one of the nodes is not a valid policy.
    """
    found: dict[str, Policy] = {}
    try:
        async with asyncio.timeout(wait_s):
            async for delivery in policies:
                delivery.ack()
                if (node := delivery.names["node"]) in nodes:
                    found[node] = _policy(delivery, broken_is_none=broken_is_none)
                if len(found) == len(nodes):
                    break
    except TimeoutError:
        pass  # the normal end if a node has no policy
    return found


def _policy(delivery: Delivery[Policy], *, broken_is_none: bool) -> Policy:
    """Return the policy of a delivery, or the default one for an invalid message that may be ignored."""
    try:
        return delivery.message()
    except CodecError:
        if not broken_is_none:
            raise
        return Policy(node=delivery.names["node"])
