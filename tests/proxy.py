"""A TCP proxy that can disturb the connections through it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.conftest import DEADLINE_S


class Proxy:
    """Forwards bytes in both directions.

    Attributes:
        accepted: Number of accepted connections.
        delay_s: Delay of each chunk, in seconds.
        closed: Whether new connections are closed at once.
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
        """Keep connections open without reading or writing."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward bytes again after `go_silent`."""
        self._flowing.set()

    def heal(self) -> None:
        """End all disturbances."""
        self.delay_s, self.closed = 0.0, False
        self.resume()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._open:
            writer.transport.abort()

    def halve(self) -> None:
        """On each open connection forward half of the next chunk, then reset it."""
        self._halving += 1

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; the callback of `asyncio.start_server`."""
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
                    chunk = chunk[: len(chunk) // 2]
                writer.write(chunk)
                await writer.drain()
                if halving != self._halving:
                    break
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port for the duration of a block."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        server.close()
        proxy.heal()
        proxy.cut()
        await server.wait_closed()
        async with asyncio.timeout(DEADLINE_S):
            while proxy._open:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.005)
