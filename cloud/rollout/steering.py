"""Carry out an operator's orders to a rollout: plain functions, and how an order is published."""

import secrets

from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Subscription
from cloud.registry.rollout_state import Action, Order, Rollout
from cloud.rollout.canary_analysis import pool_reports
from cloud.rollout.state_machine import Decision
from schemas.errors import PermanentError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import CanaryReport, Steering
from schemas.topics import CLOUD, STEERING

ROLLOUT_NAME = "rollout"
MAX_ORDERS = 32
"""Orders that a rollout's state keeps: the oldest are dropped."""


def new_order(rollout: Rollout, action: Action, by: str, reason: str | None = None) -> Steering:
    """Return an order to a rollout.

    Args:
        rollout: As last seen; it names which rollout is meant.
        action: What to do.
        by: Name of the operator.
        reason: Why, in words.

    Raises:
        PermanentError: The rollout has ended.
    """
    if rollout.phase != "running":
        raise PermanentError(
            f"the rollout of version {rollout.challenger.version} is {rollout.phase}",
            hint="'gleaner cloud release' gives nodes another version",
        )
    return Steering(
        node=CLOUD,
        name=ROLLOUT_NAME,
        order_id=secrets.token_hex(16),
        action=action,
        version=rollout.challenger.version,
        began_ms=rollout.began_ms,
        by=by,
        reason=reason or None,
        at_ms=now_ms(),
    )


async def publish_order(bus: Bus, echoes: Subscription[Steering], order: Steering) -> None:
    """Publish an order, retained; of several orders that no controller has seen yet, the last one counts.

    Raises:
        BrokerConnectionError: Not connected, or this client may not write the topic.
    """
    await publish_confirmed(bus, echoes, STEERING, order, node=order.node, name=order.name)


def is_open(rollout: Rollout, order: Steering) -> bool:
    """Return True for an order to this rollout that was not carried out yet."""
    meant = (order.version, order.began_ms) == (rollout.challenger.version, rollout.began_ms)
    return meant and all(done.order_id != order.order_id for done in rollout.orders)


def obey(order: Steering, reports: dict[str, CanaryReport]) -> Decision:
    """Return the decision that carries an order out.

    Args:
        order: An open order to a running rollout.
        reports: Canary reports of the current step, by node.
    """
    reason = _words(order) + (f": {order.reason}" if order.reason else "")
    facts: dict[str, str | int | float | bool] = {
        "order_id": order.order_id,
        "action": order.action,
        "by": order.by,
    }
    pooled = pool_reports(reports.values())
    if pooled is not None:
        facts |= {"compared": pooled.compared, "disagreed": pooled.disagreed}
    promoted = reports if order.action == "promote" else {}
    baseline = {node: report.champion for node, report in promoted.items()}
    return Decision(order.action, reason[:MAX_TEXT_CHARS], facts, baseline)


def _words(order: Steering) -> str:
    match order.action:
        case "pause":
            return f"paused by {order.by}"
        case "resume":
            return f"resumed by {order.by}"
        case "roll-back":
            return f"rolled back by {order.by}"
        case "promote":
            return f"promoted by {order.by}"


def with_order(rollout: Rollout, order: Steering) -> Rollout:
    """Return the rollout with an order added to those that were carried out."""
    done = Order(
        order_id=order.order_id, action=order.action, by=order.by, at_ms=order.at_ms, reason=order.reason
    )
    return structs.replace(rollout, orders=[*rollout.orders, done][-MAX_ORDERS:])
