"""Stop reading from the broker while a subscription's queue is full.

Ending the connection instead would make the broker deliver the same messages again, with no progress.
Reading continues while a publish waits for its PUBACK, which arrives behind the messages: those that do not
fit are then left unacknowledged, and a reconnect fetches them once the queues are empty. So each connection
makes progress.
"""

import time
from typing import Any

import structlog

from bus.metrics import Counters
from bus.mqtt.connection.connection import BrokerConnection
from bus.mqtt.subscription import QUEUED_BYTES, DeliveryQueue

log = structlog.get_logger()

STALLED_S = 30.0
"""How long reading stops, in seconds, if nothing is taken from the queues."""


class Backpressure:
    """Watches the queues of one client and controls its present connection.

    Args:
        counters: Stops are counted as `bus.paused`, messages that do not fit as `bus.overflowed`.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._queues: list[DeliveryQueue[Any]] = []
        self._connection: BrokerConnection | None = None
        self._left_behind = False
        self._stalled = False
        self._taken_at = 0.0

    def watch(self, queue: DeliveryQueue[Any]) -> None:
        """Include a queue; call before the first connection."""
        self._queues.append(queue)
        queue.on_taken = self._taken

    def begin(self) -> None:
        """Start again with a new connection, which redelivers everything that is not acknowledged."""
        self._connection, self._left_behind, self._stalled = None, False, False

    def attach(self, connection: BrokerConnection) -> None:
        """Control a connection that is proven to work.

        Not earlier: consumers may be waiting for the connection, which is proven only after messages arrive.
        """
        self._connection = connection
        connection.publisher.on_change = self.update
        self.update()

    def overflow(self, topic: str) -> None:
        """Note that a message does not fit and stays unacknowledged."""
        self._counters.add("bus.overflowed")
        level = log.debug if self._left_behind else log.warning  # once per connection
        level("bus.overflowed", topic=topic)
        self._left_behind = True

    def update(self) -> None:
        """Stop or continue reading, as the queues and the publishes demand."""
        if (connection := self._connection) is None:
            return
        if connection.paused:
            if connection.publisher.awaited or self._stalled or all(map(_has_much_room, self._queues)):
                connection.resume()
        elif not connection.publisher.awaited and not self._stalled and self._is_full():
            self._taken_at = time.monotonic()
            self._counters.add("bus.paused")
            connection.pause()

    def _is_full(self) -> bool:
        # A list and no generator, which would call a function for each queue, several times for each photo.
        return any([one.qsize() >= one.limit or one.size_bytes >= QUEUED_BYTES for one in self._queues])  # noqa: C419

    def stalled(self) -> str | None:
        """Return why no message is taken, None if some are; continue reading after a long stop."""
        connection = self._connection
        if connection is not None and connection.paused and time.monotonic() - self._taken_at > STALLED_S:
            self._stalled = True
            self.update()
        full = max((queue.qsize() for queue in self._queues), default=0)
        return f"{full} messages wait and none was taken for {STALLED_S:g} s" if self._stalled else None

    def needs_redelivery(self) -> bool:
        """Return True if messages were left to the broker and everything else is worked off."""
        return self._left_behind and all(queue.empty() for queue in self._queues)

    def _taken(self) -> None:
        self._taken_at = time.monotonic()
        self._stalled = False
        if self._connection is not None and self._connection.paused:
            self.update()


def _has_much_room(queue: DeliveryQueue[Any]) -> bool:
    return queue.qsize() <= queue.limit // 2 and queue.size_bytes <= QUEUED_BYTES // 2
