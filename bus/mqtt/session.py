"""Connect to the broker within a deadline for the duration of a block, as commands do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.mqtt.errors import BrokerConnectionError, BrokerRefusedError

CONNECT_S = 10.0
"""Default deadline of the first connection, in seconds."""


@asynccontextmanager
async def connected(bus: Bus, broker: Broker, timeout_s: float = CONNECT_S) -> AsyncIterator[None]:
    """Run a connection for the duration of a block, entered once the connection works.

    Errors leave the block inside an `ExceptionGroup`, because the connection runs in its own task.

    Args:
        bus: Not running yet; subscriptions are made before this.
        broker: Its address, for the error.
        timeout_s: Deadline of the first connection, in seconds. Later ones are retried without a deadline.

    Raises:
        BrokerConnectionError: Not connected in time; has the reason of the last attempt.
        BrokerRefusedError: The broker does not let this client in.
    """
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run(), name="bus.session")
        try:
            async with asyncio.timeout(timeout_s):
                await bus.connected()
        except TimeoutError:
            if bus.last_hint is not None:  # only after a refusal of the login
                raise BrokerRefusedError(
                    f"the broker {broker.host}:{broker.port} refuses this client: {bus.last_error}",
                    hint=bus.last_hint,
                ) from None
            raise BrokerConnectionError(
                f"no connection to {broker.host}:{broker.port} in {timeout_s:g} s: {bus.last_error}",
                hint="try 'gleaner doctor'",
            ) from None
        yield
        # Not in a `finally`: after an error the group cancels the connection itself.
        running.cancel()
