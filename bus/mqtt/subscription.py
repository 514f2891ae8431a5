"""Received messages and their bounded queues."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from bus.metrics import Counters
from bus.mqtt.connection.connection import CONCURRENT_PUBLISHES, Incoming, matches
from schemas.codec import decode
from schemas.messages import Message
from schemas.topics import EVENT, STATUS, Topic

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

# Packets that may be read from the socket at once, after reading was stopped in the middle.
_READ_AHEAD = 2 * CONCURRENT_PUBLISHES
_LOGGED_TOPIC_CHARS = 200

QUEUED_BYTES = 64 * 1024 * 1024
"""Payload bytes that wait in a queue from which on nothing more is read: a thousand messages may be 8 GB."""


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

    Bounded by `limit` and `QUEUED_BYTES`, which `bus.mqtt.backpressure` enforces. It may hold a few packets
    more, because several are read from the socket at once.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.size_bytes = 0
        """Of the payloads in it."""
        self.on_taken: Callable[[], None] | None = None

    def takes_no_more(self) -> bool:
        """Return True if a further delivery must be left to the broker."""
        return self.qsize() > self.limit + _READ_AHEAD or self.size_bytes > 2 * QUEUED_BYTES

    def _put(self, item: Delivery[M]) -> None:  # asyncio.Queue is made to be extended here
        self.size_bytes += len(item.payload)
        super()._put(item)

    def _get(self) -> Delivery[M]:  # as above
        taken: Delivery[M] = super()._get()
        self.size_bytes -= len(taken.payload)
        if self.on_taken is not None:
            self.on_taken()
        return taken


@dataclass(slots=True)
class Subscription(Generic[M]):
    """Deliveries of one topic, in order of arrival. Iterate over it.

    Bounded: while it is full, nothing more is read from the broker. A message that is read nevertheless,
    because a publish waits for its PUBACK, is counted as `bus.overflowed`. At QoS 1 a later connection
    redelivers it; at QoS 0 it is lost.
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


class Subscriptions:
    """The subscriptions of one client, by topic; each message is put into the queue of one.

    Args:
        counters: Of the client.
        delivered: Called after each message that was put into a queue.
        overflowed: Called with the topic of a message that does not fit, and stays unacknowledged.
        unmatched: Called with topic and payload of a message without a subscription.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        delivered: Callable[[], None],
        overflowed: Callable[[str], None],
        unmatched: Callable[[str, bytes], None],
    ) -> None:
        self._counters = counters
        self._delivered = delivered
        self._overflowed = overflowed
        self._unmatched = unmatched
        self._all: list[Subscription[Message]] = []
        self._optional: list[str] = []

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters that the broker must allow."""
        return tuple(one.filter for one in self._all if one.filter not in self._optional)

    @property
    def optional_filters(self) -> tuple[str, ...]:
        """The filters that the broker may refuse."""
        return tuple(self._optional)

    def add(self, subscription: Subscription[M], *, optional: bool) -> None:
        """Add a subscription."""
        if optional:
            self._optional.append(subscription.filter)
        self._all.append(subscription)  # type: ignore[arg-type]  # only ever gets messages of its own topic

    def inject(self, topic: str, payload: bytes) -> None:
        """Put a message into the queues as if the broker had retained it."""
        for subscription in self._all:
            if (names := subscription.topic.match(topic)) is not None:
                delivery = Delivery(
                    subscription.topic,
                    names,
                    payload,
                    retained=True,
                    arrived_at=time.monotonic(),
                    ack=_no_ack,
                )
                subscription.queue.put_nowait(delivery)

    def put(self, incoming: Incoming, *, expected: bool) -> None:
        """Put a message into the queue of its subscription.

        Args:
            incoming: As it was read from the socket.
            expected: Whether a raw subscription takes it, so that it needs no other one.
        """
        for subscription in self._all:
            if (names := subscription.topic.match(incoming.topic)) is None:
                continue
            if incoming.retained and subscription.topic is EVENT:
                _acknowledge(incoming)  # a retained event would happen again at each connection
            else:
                self._deliver(subscription, names, incoming)
            return  # one delivery has one ack, so one subscription gets it
        self._discard(incoming, expected=expected)

    def _deliver(
        self, subscription: Subscription[Message], names: dict[str, str], incoming: Incoming
    ) -> None:
        delivery = Delivery(
            subscription.topic,
            names,
            incoming.payload,
            incoming.retained,
            time.monotonic(),
            incoming.ack or _no_ack,
        )
        # The bound holds for injected and QoS 0 messages too, although nothing redelivers them.
        if subscription.queue.takes_no_more():
            self._overflowed(incoming.topic)
        else:
            subscription.queue.put_nowait(delivery)
            self._delivered()

    def _discard(self, incoming: Incoming, *, expected: bool) -> None:
        """Acknowledge a message without a subscription; count it unless it is expected or a Status.

        It is our own Status, or a topic with a name that is not a DNS label.
        """
        _acknowledge(incoming)
        if not expected and STATUS.match(incoming.topic) is None:
            self._counters.add("bus.unmatched")
            log.warning("bus.unmatched", topic=incoming.topic[:_LOGGED_TOPIC_CHARS])
            self._unmatched(incoming.topic, incoming.payload)


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A received message with its topic, for diagnostics."""

    topic: str
    payload: bytes
    retained: bool


class RawQueue(asyncio.Queue[RawMessage]):
    """Messages of a raw subscription; full at its number of messages, or at four times `QUEUED_BYTES`."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self._bytes = 0

    def full(self) -> bool:
        """Return True if there is no room for another message."""
        return super().full() or self._bytes >= 4 * QUEUED_BYTES  # the statuses of a large fleet have room

    def _put(self, item: RawMessage) -> None:
        self._bytes += len(item.payload)
        super()._put(item)

    def _get(self) -> RawMessage:
        taken: RawMessage = super()._get()
        self._bytes -= len(taken.payload)
        return taken


class RawSubscriptions:
    """The raw subscriptions of one client.

    Bounded: a message for a full queue is dropped and counted as `bus.overflowed`; in the queue of an
    optional filter it replaces the oldest one.

    Args:
        counters: Of the client.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._queues: dict[str, RawQueue] = {}
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
        return self._queues.setdefault(topic_filter, RawQueue(queue))

    def put(self, incoming: Incoming) -> bool:
        """Put a message into the queues whose filter matches; return whether there was one."""
        matched = False
        for topic_filter, queue in self._queues.items():
            if not matches(topic_filter, incoming.topic):
                continue
            matched = True
            while topic_filter in self._optional and queue.full():
                queue.get_nowait()
            try:
                queue.put_nowait(RawMessage(incoming.topic, incoming.payload, incoming.retained))
            except asyncio.QueueFull:
                self._counters.add("bus.overflowed")
        return matched


def _acknowledge(incoming: Incoming) -> None:
    if incoming.ack is not None:
        incoming.ack()


def _no_ack() -> None:
    """Do nothing: QoS 0 and injected messages have no PUBACK."""
