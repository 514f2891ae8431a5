"""Received messages and their bounded queues."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bus.metrics import Counters
from bus.mqtt.connection import Incoming, matches
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


class DeliveryQueue(asyncio.Queue[Delivery[M]], Generic[M]):
    """Deliveries of one subscription that wait in this process.

    Bounded: `limit` is kept by who fills it, see `bus.mqtt.backpressure`. A few packets more may be in it,
    because several are read from the socket at once.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.on_taken: Callable[[], None] | None = None

    def _get(self) -> Delivery[M]:  # asyncio.Queue is made to be extended here
        taken: Delivery[M] = super()._get()
        if self.on_taken is not None:
            self.on_taken()
        return taken


@dataclass(slots=True)
class Subscription(Generic[M]):
    """Deliveries of one topic, in order of arrival. Iterate over it.

    Bounded: while it is full, nothing more is read from the broker. A message that is read all the same,
    because a publish waits for its PUBACK, is counted as `bus.overflowed` and comes again with a later
    connection at QoS 1; at QoS 0 it is lost.
    """

    topic: Topic[M]
    filter: str
    queue: DeliveryQueue[M]

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


class RawSubscriptions:
    """The raw subscriptions of one client.

    Bounded: a message for a full queue is dropped and counted as `bus.overflowed`; in the queue of an
    optional filter it replaces the oldest one.

    Args:
        counters: Of the client.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._queues: dict[str, asyncio.Queue[RawMessage]] = {}
        self._optional: set[str] = set()

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters that the broker must allow."""
        return tuple(name for name in self._queues if name not in self._optional)

    @property
    def optional_filters(self) -> tuple[str, ...]:
        """The filters that the broker may refuse."""
        return tuple(self._optional)

    def add(self, topic_filter: str, queue: int, *, optional: bool) -> asyncio.Queue[RawMessage]:
        """Return the queue of a filter, of that size if it is new."""
        if optional:
            self._optional.add(topic_filter)
        return self._queues.setdefault(topic_filter, asyncio.Queue(queue))

    def put(self, incoming: Incoming) -> bool:
        """Put a message into the queues whose filter matches; return whether there was one."""
        matched = False
        for topic_filter, queue in self._queues.items():
            if not matches(topic_filter, incoming.topic):
                continue
            matched = True
            if topic_filter in self._optional and queue.full():
                queue.get_nowait()
            try:
                queue.put_nowait(RawMessage(incoming.topic, incoming.payload, incoming.retained))
            except asyncio.QueueFull:
                self._counters.add("bus.overflowed")
        return matched
