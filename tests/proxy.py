"""A TCP proxy that can disturb the connections through it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

_GARBAGE = b"\xff" * 16


class Proxy:
    """Forwards bytes in both directions.

    Attributes:
        accepted: Number of accepted connections.
        delay_s: Delay of each chunk, in seconds.
        half_open: Whether what the target sends is swallowed, while what it receives is forwarded.
        closed: Whether new connections are closed at once.
        bytes_per_s: Rate of each direction of each connection; unlimited if None.
        forwarded_bytes: Sum over all connections and both directions.
        idle_s: Time in which a connection with a rate had nothing to forward to the target, in seconds. With
            the bytes at that rate it is the time that the link itself needed, however busy this machine is.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.accepted = 0
        self.delay_s = 0.0
        self.closed = False
        self.bytes_per_s: float | None = None
        self.half_open = False
        self.forwarded_bytes = 0
        self.idle_s = 0.0
        self._halving = 0
        self._corrupting = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def go_silent(self) -> None:
        """Keep connections open without reading or writing."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward bytes again after `go_silent`."""
        self._flowing.set()

    def heal(self) -> None:
        """End all disturbances."""
        if self.half_open:
            self.cut()  # bytes are missing in these streams: they cannot continue
        self.delay_s, self.closed, self.bytes_per_s, self.half_open = 0.0, False, None, False
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

    def corrupt(self) -> None:
        """On each open connection insert bytes that no MQTT packet begins with, before the next packet.

        Not inside one: TCP and TLS keep bytes from changing there, and no receiver could notice.
        """
        self._corrupting += 1

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; the callback of `asyncio.start_server`."""
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError):
                if not self.closed:
                    await self._connect(reader, writer)
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open |= {writer, far_writer}
        await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer, back=True))
        self._open -= {writer, far_writer}

    async def end(self) -> None:
        """Reset all connections, also those to a target that has not answered yet."""
        self.cut()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        halving, corrupting, packets = self._halving, self._corrupting, MqttPackets()
        with contextlib.suppress(OSError):
            while chunk := await self._read(reader, back=back):
                if self.bytes_per_s:
                    await asyncio.sleep(len(chunk) / self.bytes_per_s)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                if halving != self._halving:
                    chunk = chunk[: len(chunk) // 2]
                boundary = packets.feed(chunk)
                if corrupting != self._corrupting and boundary is not None:
                    corrupting = self._corrupting
                    chunk = chunk[:boundary] + _GARBAGE + chunk[boundary:]
                if back and self.half_open:
                    continue
                self.forwarded_bytes += len(chunk)
                writer.write(chunk)
                await writer.drain()
                if halving != self._halving:
                    break
            else:
                writer.close()  # after the bytes that wait: the other side has sent them and closed
                return
        writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, *, back: bool) -> bytes:
        began = time.monotonic()
        chunk = await reader.read(self._chunk_bytes())
        if self.bytes_per_s and not back:
            self.idle_s += time.monotonic() - began
        return chunk

    def _chunk_bytes(self) -> int:
        return 65536 if self.bytes_per_s is None else max(1, int(self.bytes_per_s / 50))


class MqttPackets:
    """Finds where packets of MQTT begin in a stream: a byte, the length in 7-bit groups, as many bytes."""

    def __init__(self) -> None:
        self._rest = 0
        self._length: list[int] | None = None

    def feed(self, chunk: bytes) -> int | None:
        """Take the next bytes of the stream; return where the first packet in them begins, if one does."""
        found, at = None, 0
        while at < len(chunk):
            if self._length is not None:
                self._length.append(chunk[at] & 127)
                if not chunk[at] & 128:
                    self._rest = sum(group << 7 * place for place, group in enumerate(self._length))
                    self._length = None
                at += 1
            elif self._rest:
                step = min(self._rest, len(chunk) - at)
                self._rest, at = self._rest - step, at + step
            else:
                found = at if found is None else found
                self._length = []
                at += 1
        return found


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port for the duration of a block."""
    proxy = Proxy(port)
    # Small buffers, so that a rate is the rate of the connection and not of what the proxy has read ahead.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    server = await asyncio.start_server(proxy.pass_on, sock=listener, limit=4096)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        server.close()
        proxy.heal()
        await proxy.end()
        await server.wait_closed()
