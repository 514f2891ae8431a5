"""A short connection to the broker, for interactive commands."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import config
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from cli import options

CONNECT_S = 10.0
"""Timeout of the first connection, in seconds; a service would retry without end."""


def bus(arguments: Namespace, purpose: str) -> Bus:
    """Return an unconnected client for the broker of the options; subscribe on it, then use `connected`."""
    return Bus(options.broker(arguments), transient_client_id(purpose), password=config.password())


@asynccontextmanager
async def connected(
    arguments: Namespace, connection: Bus, timeout_s: float = CONNECT_S
) -> AsyncIterator[None]:
    """Run the connection for the length of a block, which is entered once it is connected.

    Raises:
        BrokerConnectionError: There was no connection in time; has the last reason.
    """
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(connection.run(), name="cli.bus")
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connected()
        except TimeoutError:
            broker = options.broker(arguments)
            raise BrokerConnectionError(
                f"no connection to {broker.host}:{broker.port} in {timeout_s:g} s: {connection.last_error}",
                hint="try 'gleaner doctor'",
            ) from None
        yield
        # Not in a `finally`: if the block raises, the TaskGroup cancels the task itself.
        running.cancel()
