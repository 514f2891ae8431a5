"""Publishing with proof: a broker acknowledges what it refuses, and only what comes back was let through."""

import asyncio
from typing import TypeVar

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.subscription import Subscription
from schemas.codec import encode
from schemas.messages import Message
from schemas.topics import Topic

M = TypeVar("M", bound=Message)

_ECHO_S = 10.0


async def publish_confirmed(
    bus: Bus, echoes: Subscription[M], topic: Topic[M], message: M, **names: str
) -> None:
    """Publish and wait until the message comes back.

    Args:
        bus: Connected.
        echoes: Of that topic; what else arrives there is passed over.
        topic: Where to publish.
        message: What.
        names: Those of the topic.

    Raises:
        TopicError: A name is no DNS label.
        BrokerConnectionError: No connection, or the broker lets this client not write or not read the topic.
    """
    payload, place = encode(topic, message), topic.name(**names)
    await bus.publish(topic, message, **names)
    try:
        async with asyncio.timeout(_ECHO_S):
            async for delivery in echoes:
                delivery.ack()
                if delivery.payload == payload:
                    return
    except TimeoutError:
        raise BrokerConnectionError(
            f"message to {place}",
            expected=f"to come back within {_ECHO_S:g} s",
            got="nothing (may this client write and read it?)",
        ) from None
