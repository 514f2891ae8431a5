"""Publish with proof of delivery by the broker."""

import asyncio
from typing import TypeVar

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.subscription import Subscription
from schemas.codec import encode
from schemas.messages import Message
from schemas.topics import Topic

M = TypeVar("M", bound=Message)

_CONFIRM_S = 10.0


async def publish_confirmed(
    bus: Bus, subscription: Subscription[M], topic: Topic[M], message: M, **names: str
) -> None:
    """Publish a message and wait until the broker delivers it to our own subscription.

    A PUBACK proves nothing: the broker also acknowledges a message that it drops for lack of permission.

    Args:
        bus: Connected.
        subscription: Of that topic, on the same bus; other messages on it are acknowledged and ignored.
        topic: Where to publish.
        message: The message.
        names: Values for the topic's names.

    Raises:
        TopicError: A name is not a DNS label.
        BrokerConnectionError: Not connected, or the client may not write or not read the topic.
    """
    payload, topic_name = encode(topic, message), topic.name(**names)
    await bus.publish(topic, message, **names)
    try:
        async with asyncio.timeout(_CONFIRM_S):
            async for delivery in subscription:
                delivery.ack()
                if delivery.payload == payload:
                    return
    except TimeoutError:
        raise BrokerConnectionError(
            f"the broker did not deliver the message on {topic_name} within {_CONFIRM_S:g} s",
            hint="may this client write and read it?",
        ) from None
