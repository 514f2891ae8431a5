"""A TCP proxy between two components that can hurt the connections through it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes both ways, until told otherwise.

    Silent: connections stay open and nobody reads them. Closed: new connections are ended at once. Delayed:
    each chunk waits. Halved: of the next chunk on each connection half is passed, then the connection ends.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.accepted = 0
        self.delay_s = 0.0
        self.closed = False
        self._halving = 0
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

    def heal(self) -> None:
        """Do no harm any more."""
        self.delay_s, self.closed = 0.0, False
        self.resume()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open) // 2

    def cut(self) -> None:
        """End all connections at once, as a pulled cable with a reset would."""
        for writer in self._open:
            writer.transport.abort()

    def halve(self) -> None:
        """Pass half of the next chunk on each connection that is open now, then end it."""
        self._halving += 1

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.accepted += 1
        with contextlib.suppress(OSError):
            if not self.closed:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
                self._open |= {writer, far_writer}
                await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
                self._open -= {writer, far_writer}
        writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        halving = self._halving
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                if halving != self._halving:
                    chunk = chunk[: len(chunk) // 2]  # the other half is lost
                writer.write(chunk)
                await writer.drain()
                if halving != self._halving:
                    break
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
        proxy.heal()
        proxy.cut()
        await server.wait_closed()
        async with asyncio.timeout(5):
            while proxy._open:  # noqa: ASYNC110  # a connection has no event for its end
                await asyncio.sleep(0.005)
