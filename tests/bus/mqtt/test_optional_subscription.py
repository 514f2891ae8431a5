"""A topic that is newer than a broker's access list: an optional subscription may be refused."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from schemas.errors import PermanentError
from schemas.topics import FORGET
from tests.conftest import DEADLINE_S, running

NOT_AUTHORIZED = 0x87
SUBSCRIBE, SUBACK = 0x82, 0x90


@asynccontextmanager
async def refusing(port: int, topic: bytes):
    """A real broker that refuses the subscription to a topic, as mosquitto's access lists never do."""
    refused: set[bytes] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def up() -> None:
            while data := await reader.read(65536):
                if data[0] == SUBSCRIBE and topic in data:
                    refused.add(data[2:4])
                far_writer.write(data)
            far_writer.close()

        async def down() -> None:
            while data := await far_reader.read(65536):
                if data[0] == SUBACK and data[2:4] in refused:
                    data = data[:5] + bytes([NOT_AUTHORIZED]) + data[6:]
                writer.write(data)
            writer.close()

        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(up(), down(), return_exceptions=True)
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_refused_optional_subscription_lets_the_client_work(broker):
    """An edge of this version works with a site of the one before; any other refusal ends the client."""
    async with refusing(broker.port, FORGET.filter.encode()) as port:
        client = Bus(Broker(port=port), transient_client_id("new"))
        client.subscribe(FORGET, optional=True)
        async with running(client):
            await client.publish_bytes("gleaner/v1/event/edge-1/edge", b"x")
        strict = Bus(Broker(port=port), transient_client_id("strict"))
        strict.subscribe(FORGET)
        with pytest.raises(PermanentError, match="refused a subscription"):
            async with asyncio.timeout(DEADLINE_S):
                await strict.run()
