"""A passing connection to the broker, for commands that a person types."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import config
from bus.mqtt import session
from bus.mqtt.client import Bus, transient_client_id
from cli import options


def bus(arguments: Namespace, purpose: str) -> Bus:
    """Return a connection to the broker that the options name; subscribe on it, then use `connected`."""
    return Bus(options.broker(arguments), transient_client_id(purpose), password=config.password())


@asynccontextmanager
async def connected(
    arguments: Namespace, connection: Bus, timeout_s: float = session.CONNECT_S
) -> AsyncIterator[None]:
    """Run a connection for the length of a block, entered when it works.

    Raises:
        BrokerConnectionError: It did not come about in time, and why.
    """
    async with session.connected(connection, options.broker(arguments), timeout_s):
        yield
