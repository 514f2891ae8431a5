"""Bound the connections of a small HTTP server: new ones replace idle ones, and heads have a deadline."""

import asyncio
from collections.abc import Callable
from typing import cast

HEAD_S = 5.0
"""How long a client may take to send the head of its request, in seconds."""

_END_OF_HEAD = b"\r\n\r\n"


class ConnectionLimit:
    """The open connections of one server, the oldest first.

    Bounded: beyond `most`, the oldest connection whose request has not begun is closed, else the oldest.

    Args:
        most: How many may be open.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[asyncio.BaseTransport, None] = {}  # ordered
        self._busy: dict[asyncio.BaseTransport, None] = {}

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Count a new connection, and close another one if there are too many."""
        self._idle[transport] = None
        if len(self._idle) + len(self._busy) > self._most:
            waiting = self._idle if len(self._idle) > 1 else self._busy  # the new one is idle too
            oldest = next(iter(waiting))
            self.closed(oldest)
            cast(asyncio.WriteTransport, oldest).abort()

    def begun(self, transport: asyncio.BaseTransport) -> None:
        """Note that the head of a connection's request has arrived."""
        if transport in self._idle:
            del self._idle[transport]
            self._busy[transport] = None

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection."""
        self._idle.pop(transport, None)
        self._busy.pop(transport, None)


class LimitedProtocol(asyncio.Protocol):
    """Passes a connection on to another protocol, and closes it if no head arrives in time.

    Args:
        inner: The protocol of the server.
        limit: Shared by all connections of the server.
    """

    def __init__(self, inner: asyncio.Protocol, limit: ConnectionLimit) -> None:
        self._inner = inner
        self._limit = limit
        self._transport: asyncio.BaseTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._tail = b""

    @classmethod
    def factory(
        cls, make: Callable[[], asyncio.BaseProtocol], most: int
    ) -> Callable[[], asyncio.BaseProtocol]:
        """Return a protocol factory for `loop.create_server`."""
        limit = ConnectionLimit(most)
        return lambda: cls(cast(asyncio.Protocol, make()), limit)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the head."""
        self._transport = transport
        self._limit.opened(transport)
        abort = cast(asyncio.WriteTransport, transport).abort
        self._deadline = asyncio.get_running_loop().call_later(HEAD_S, abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass data on; the first end of a head ends the deadline."""
        if self._deadline is not None and self._transport is not None:
            seen = self._tail + data
            self._tail = seen[-len(_END_OF_HEAD) :]
            if _END_OF_HEAD in seen:
                self._limit.begun(self._transport)
                self._end_deadline()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the end of the client's data on."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end of the connection on."""
        if self._transport is not None:
            self._limit.closed(self._transport)
        self._end_deadline()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the client reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client reads again."""
        self._inner.resume_writing()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
