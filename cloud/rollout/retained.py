"""Clear retained messages: those of a node that is gone, or a policy that no longer applies."""

import asyncio
from collections.abc import Iterable

from bus.mqtt.client import Bus
from bus.mqtt.subscription import RawMessage
from schemas.errors import PermanentError

_CONFIRM_S = 10.0


async def clear_retained(bus: Bus, echoes: "asyncio.Queue[RawMessage]", topics: Iterable[str]) -> None:
    """Clear the retained message of each topic, as an empty one does, and wait until the broker has done it.

    Args:
        bus: Connected.
        echoes: Raw subscription to all these topics, made before the bus connected.
        topics: Their names.

    Raises:
        BrokerConnectionError: The connection was lost.
        PermanentError: The broker does not let this client write such a topic.
    """
    missing = set(topics)
    for topic in sorted(missing):
        await bus.publish_bytes(topic, b"", retain=True)
    try:
        async with asyncio.timeout(_CONFIRM_S):
            while missing:
                message = await echoes.get()
                if not message.payload:
                    missing.discard(message.topic)
    except TimeoutError:
        # A PUBACK proves nothing: the broker also acknowledges a message that it drops.
        raise PermanentError(
            f"the broker did not clear {', '.join(sorted(missing))}",
            hint="it needs the certificate of the rollout: `--config` with the site's cloud/rollout.toml",
        ) from None
