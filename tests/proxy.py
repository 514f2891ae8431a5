"""A TCP proxy between a client and a broker that can go silent or cut its connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes both ways, until told to be silent: then connections stay open and nobody reads them."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()

    def go_silent(self) -> None:
        """Keep the connections open, and neither read nor write."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on bytes again."""
        self._flowing.set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open) // 2

    def cut(self) -> None:
        """End all connections at once, as a pulled cable with a reset would."""
        for writer in self._open:
            writer.transport.abort()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.accepted += 1
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._open |= {writer, far_writer}
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
            self._open -= {writer, far_writer}
        writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port for the length of a block."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        server.close()
        proxy.resume()
        proxy.cut()
        await server.wait_closed()
        async with asyncio.timeout(5):
            while proxy._open:  # noqa: ASYNC110  # a connection has no event for its end
                await asyncio.sleep(0.005)
