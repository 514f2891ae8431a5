"""Prove that a connection works: publish the Status of the component and wait until the broker returns it."""

import asyncio

from bus.mqtt.connection.connection import BrokerConnection, Incoming
from bus.mqtt.errors import BrokerConnectionError
from bus.mqtt.presence import Presence, Reporter

_PROBE_S = 10.0


class StatusProbe:
    """Detects a client that may not read or write its topics; one probe per connection, see `reset`.

    A missing permission is not reported otherwise: the broker acknowledges a publish that it drops.

    Args:
        address: of the broker, for the error.
        presence: names the topic of the Status and recognises our own.
        reporter: publishes the Status.
    """

    def __init__(self, address: str, presence: Presence, reporter: Reporter) -> None:
        self._address = address
        self._presence = presence
        self._reporter = reporter
        self._returned = asyncio.Event()

    def reset(self) -> None:
        """Forget an earlier connection's answer; call before the next connection is opened."""
        self._returned = asyncio.Event()

    def receive(self, incoming: Incoming) -> None:
        """Note the answer if this message is it; must not block."""
        if self._returned.is_set() or incoming.topic != self._presence.topic:
            return
        # The retained Status of an earlier run arrives on the same topic, before ours.
        if self._presence.is_own(incoming.payload):
            self._returned.set()

    async def run(self, connection: BrokerConnection) -> None:
        """Subscribe to the Status, publish it, and wait for it. Safe to cancel.

        Raises:
            BrokerConnectionError: It was not received in time, or the connection failed meanwhile.
        """
        # QoS 0: at QoS 1 the probe would queue behind messages that wait for our acknowledgement.
        await connection.subscribe(self._presence.topic, qos=0)
        try:
            await connection.until(self._reporter.publish(connection), _PROBE_S)
            await connection.until(self._returned.wait(), _PROBE_S)
        except TimeoutError:
            raise BrokerConnectionError(
                self._address,
                reason=f"our own status on {self._presence.topic} was not received within {_PROBE_S:g} s "
                "(may this client read and write it?)",
            ) from None
