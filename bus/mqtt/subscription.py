"""What arrives from the bus: deliveries, and the bounded queues in which they wait."""

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
    """A message as it arrived.

    Args:
        topic: The kind of topic.
        names: The names in the topic.
        payload: Any bytes at all.
        retained: The broker kept it for those who come later.
        arrived_at: Seconds of the monotonic clock.
        ack: Tell the broker that it may forget this message. Until then it keeps it, and delivers it again
            on the next connection. On a connection that is gone this does nothing.
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
            CodecError: The payload is no such message.
        """
        return decode(self.topic, self.payload, self.names)


@dataclass(slots=True)
class Subscription(Generic[M]):
    """Deliveries of one topic, in order of arrival. Iterate over it.

    Bounded: what finds it full is counted as `bus.overflowed` and ends the connection, so that the broker
    brings it again (QoS 1), or is lost (QoS 0, which promises no more).
    """

    topic: Topic[M]
    filter: str
    queue: asyncio.Queue[Delivery[M]]

    def __aiter__(self) -> AsyncIterator[Delivery[M]]:
        return self

    async def __anext__(self) -> Delivery[M]:
        return await self.queue.get()

    async def next_batch(self, most: int) -> list[Delivery[M]]:
        """Wait for one delivery, then return it with what has arrived behind it, at most so many."""
        deliveries = [await self.queue.get()]
        while len(deliveries) < most and not self.queue.empty():
            deliveries.append(self.queue.get_nowait())
        return deliveries


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as it crossed the bus, not decoded."""

    topic: str
    payload: bytes
    retained: bool
