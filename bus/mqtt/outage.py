"""Log the end of connections: an outage once, and again when its reason changes."""

import time

import structlog

from bus.backoff import ReconnectBackoff
from bus.metrics import Counters
from bus.mqtt.errors import BrokerConnectionError

log = structlog.get_logger()

_RECONNECT_CAP_S = 10.0
SETTLED_S = 60.0
"""Uptime of a connection, in seconds, after which a client is no longer flapping."""
_FLAPPING_CONNECTIONS = 3
_MOST_REASONS = 16


class Outage:
    """The present outage of one client, if there is one.

    Args:
        address: How messages name the broker.
        client_id: The client's id.
        counters: Ends of connections are counted as `bus.disconnected` and `bus.flapping`, and as many
            `bus.settled` as `bus.flapping` once a connection has lasted.
    """

    def __init__(self, address: str, client_id: str, counters: Counters) -> None:
        self.began_at: float | None = None
        """When it began, in seconds of the monotonic clock; None before the first failure."""
        self._address = address
        self._client_id = client_id
        self._counters = counters
        self._backoff = ReconnectBackoff(_RECONNECT_CAP_S)
        self._reasons: set[str] = set()
        self._flaps = 0

    def failed(self, error: BrokerConnectionError, connected_at: float | None) -> float:
        """Log a failed attempt or the end of a connection; returns the delay of the next attempt, in seconds.

        Args:
            error: Why.
            connected_at: When the connection was proven to work, None for a failed attempt.
        """
        now = time.monotonic()
        delay_s = self._backoff.next_delay(None if connected_at is None else now - connected_at)
        self._counters.add("bus.disconnected")
        if self._backoff.failures == 1:
            self.began_at = now
            self._reasons.clear()
        # A broker that stays down must not fill the log, but each reason is logged once: "not authorized"
        # after "connection refused" is another fault.
        known = error.reason in self._reasons or len(self._reasons) >= _MOST_REASONS
        self._reasons.add(error.reason)
        level = log.debug if known else log.warning
        level("bus.disconnected", broker=self._address, error=str(error))
        if self._backoff.short_connections == _FLAPPING_CONNECTIONS:
            self._counters.add("bus.flapping")
            self._flaps += 1
            hint = "does another client use the same id?"
            log.warning("bus.flapping", broker=self._address, client_id=self._client_id, hint=hint)
        return delay_s

    def settle(self, connected_at: float | None) -> None:
        """Record that a client has stopped flapping, if its present connection has lasted for a minute.

        Args:
            connected_at: When the present connection was proven to work; None if there is none.
        """
        if self._flaps and connected_at is not None and time.monotonic() - connected_at >= SETTLED_S:
            self._counters.add("bus.settled", self._flaps)
            self._flaps = 0
            log.info("bus.settled", broker=self._address, client_id=self._client_id)
