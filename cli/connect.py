"""A short connection to the broker, for interactive commands."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import config
from bus.mqtt import session
from bus.mqtt.client import Bus, transient_client_id
from cli import options


def bus(arguments: Namespace, purpose: str) -> Bus:
    """Return an unconnected client for the broker of the options; subscribe on it, then use `connected`."""
    broker = options.broker(arguments)
    return Bus(broker, transient_client_id(purpose), password=config.password(broker))


@asynccontextmanager
async def connected(
    arguments: Namespace, connection: Bus, timeout_s: float = session.CONNECT_S
) -> AsyncIterator[None]:
    """Run the connection for the length of a block, which is entered once it is connected.

    Raises:
        BrokerConnectionError: There was no connection in time; has the last reason.
    """
    async with session.connected(connection, options.broker(arguments), timeout_s):
        yield
