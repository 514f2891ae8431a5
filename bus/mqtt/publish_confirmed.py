"""Publish with proof of delivery by the broker."""

import asyncio
from typing import TypeVar

from bus.mqtt.client import Bus
from bus.mqtt.errors import RIGHTS_HINT, BrokerConnectionError, PublishRefusedError
from bus.mqtt.subscription import Delivery, Subscription
from bus.security import acl
from schemas.codec import encode
from schemas.messages import Message
from schemas.topics import Topic

M = TypeVar("M", bound=Message)

_CONFIRM_S = 10.0


async def publish_confirmed(
    bus: Bus, subscription: Subscription[M], topic: Topic[M], message: M, **names: str
) -> list[Delivery[M]]:
    """Publish a message and wait until the broker delivers it to our own subscription.

    A PUBACK proves nothing: the broker also acknowledges a message that it drops for lack of permission.

    Args:
        bus: Connected.
        subscription: Of that topic, on the same bus; other messages on it are acknowledged.
        topic: Where to publish.
        message: The message.
        names: Values for the topic's names.

    Returns:
        The other messages that the broker delivered before it, in the broker's order.

    Raises:
        TopicError: A name is not a DNS label.
        PublishRefusedError: The client may not write the topic.
        BrokerConnectionError: Not connected, or the client may not read the topic; or it may not write it,
            and the broker speaks MQTT 3.1.1, which cannot report that.
    """
    payload, topic_name = encode(topic, message), topic.name(**names)
    others: list[Delivery[M]] = []
    try:
        await bus.publish(topic, message, **names)
    except PublishRefusedError:
        allowed = " or ".join(acl.writers(topic))
        raise PublishRefusedError(
            f"this client may not write {topic_name}",
            hint=f"use the certificate of {allowed}, see 'gleaner provision'" if allowed else RIGHTS_HINT,
        ) from None
    try:
        async with asyncio.timeout(_CONFIRM_S):
            async for delivery in subscription:
                delivery.ack()
                if delivery.payload == payload:
                    break
                others.append(delivery)
    except TimeoutError:
        raise BrokerConnectionError(
            f"the broker did not deliver the message on {topic_name} within {_CONFIRM_S:g} s",
            hint=RIGHTS_HINT,
        ) from None
    return others
