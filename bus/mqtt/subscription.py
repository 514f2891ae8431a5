"""Received messages and their bounded queues."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.codec import decode
from schemas.messages import Message
from schemas.topics import Topic

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[M]):
    """A received message, not yet decoded.

    Args:
        topic: The kind of topic.
        names: The names in the topic.
        payload: Any bytes.
        retained: Whether the broker had retained it.
        arrived_at: Time of arrival, in seconds of the monotonic clock.
        ack: Acknowledges the message. Until then the broker keeps it, and redelivers it on the next
            connection. Does nothing on a connection that has ended.
    """

    topic: Topic[M]
    names: dict[str, str]
    payload: bytes
    retained: bool
    arrived_at: float
    ack: Callable[[], None]

    def message(self) -> M:
        """Return the decoded message.

        Raises:
            CodecError: The payload is not a valid message of the topic.
        """
        return decode(self.topic, self.payload, self.names)


@dataclass(slots=True)
class Subscription(Generic[M]):
    """Deliveries of one topic, in order of arrival. Iterate over it.

    Bounded: a message for a full queue is counted as `bus.overflowed`. At QoS 1 it also ends the connection,
    so that the broker redelivers it; at QoS 0 it is lost.
    """

    topic: Topic[M]
    filter: str
    queue: asyncio.Queue[Delivery[M]]

    def __aiter__(self) -> AsyncIterator[Delivery[M]]:
        return self

    async def __anext__(self) -> Delivery[M]:
        return await self.queue.get()

    async def next_batch(self, max_count: int) -> list[Delivery[M]]:
        """Wait for a delivery; return it and those that already wait behind it, at most `max_count`."""
        deliveries = [await self.queue.get()]
        while len(deliveries) < max_count and not self.queue.empty():
            deliveries.append(self.queue.get_nowait())
        return deliveries


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A received message with its topic, for diagnostics."""

    topic: str
    payload: bytes
    retained: bool
