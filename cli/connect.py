"""A passing connection to the broker, for commands that a person types."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import config
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from cli import options

CONNECT_S = 10.0
"""A person who waits longer than that for a connection has a broker that is not there."""


def bus(arguments: Namespace, purpose: str) -> Bus:
    """Return a connection to the broker that the options name; subscribe on it, then use `connected`."""
    return Bus(options.broker(arguments), transient_client_id(purpose), password=config.password())


@asynccontextmanager
async def connected(
    arguments: Namespace, connection: Bus, timeout_s: float = CONNECT_S
) -> AsyncIterator[None]:
    """Run a connection for the length of a block, entered when it works.

    Raises:
        BrokerConnectionError: It did not come about in time, and why.
    """
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(connection.run(), name="cli.bus")
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connected()
        except TimeoutError:
            broker = options.broker(arguments)
            expected = f"a connection within {timeout_s:g} s (try `gleaner doctor`)"
            raise BrokerConnectionError(
                f"broker {broker.host}:{broker.port}", expected=expected, got=connection.last_error
            ) from None
        yield
        running.cancel()
