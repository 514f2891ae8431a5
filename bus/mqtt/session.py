"""A short connection to the broker: connect within a deadline, work, disconnect."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError

CONNECT_S = 10.0
"""Default deadline for the first connection: a broker that takes longer is taken to be down."""


@asynccontextmanager
async def connected(bus: Bus, broker: Broker, timeout_s: float = CONNECT_S) -> AsyncIterator[None]:
    """Run a connection for the length of a block, which is entered once the connection works.

    Errors leave the block inside an `ExceptionGroup`: the connection runs in a task of its own.

    Args:
        bus: Not running yet; subscriptions are made before this.
        broker: Where it connects to, for the error.
        timeout_s: Deadline of the first connection, in seconds. Later ones are retried without a deadline.

    Raises:
        BrokerConnectionError: There was no connection in time; the sentence has the reason.
    """
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run(), name="bus.session")
        try:
            async with asyncio.timeout(timeout_s):
                await bus.connected()
        except TimeoutError:
            raise BrokerConnectionError(
                f"no connection to {broker.host}:{broker.port} in {timeout_s:g} s: {bus.last_error}",
                hint="try 'gleaner doctor'",
            ) from None
        yield
        # Not in a `finally`: after an error the group cancels the connection itself.
        running.cancel()
