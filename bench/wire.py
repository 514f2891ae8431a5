"""A small MQTT 3.1.1 client for load tests: a thousand connections fit into one process.

It has only what a simulated device needs: QoS 1 in both directions, no will, no keep-alive, no reconnection.
Use it for measurements on loopback only.
"""

import asyncio
from collections.abc import Callable
from typing import cast

OnMessage = Callable[[str, bytes], None]
"""Called with the topic and payload of each message."""

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_MOST_IDS = 65_535
_START_S = 10.0


class WireError(Exception):
    """The broker refused the request or closed the connection."""


class Wire(asyncio.Protocol):
    """One connection; create it with `connect`.

    Args:
        on_message: Called with each message, which is acknowledged when it returns.
    """

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._read = bytearray()
        self._number = 0
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.unacknowledged = 0
        """Number of messages that the broker has not acknowledged."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls this."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle complete packets; asyncio calls this."""
        self._read += data
        while (packet := split(self._read)) is not None:
            head, body, size_bytes = packet
            del self._read[:size_bytes]
            self._packet(head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending request; asyncio calls this."""
        if not self._answered.done():
            self._answered.set_exception(WireError(f"the broker closed the connection: {exc}"))
            self._answered.exception()  # retrieved, or asyncio logs it when no request is pending

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 without waiting for the PUBACK."""
        name = topic.encode()
        self.unacknowledged += 1
        head = b"".join((len(name).to_bytes(2), name, self._next_id()))
        first = b"\x33" if retain else b"\x32"
        self._transport.writelines((first, length(len(head) + len(payload)), head, payload))

    async def subscribe(self, chosen: str) -> None:
        """Subscribe at QoS 1.

        Raises:
            WireError: The broker refuses.
        """
        granted = await self._review(b"\x82", self._next_id() + text(chosen) + b"\x01")
        if granted[-1] > 1:  # 0x80 is a refusal
            raise WireError(f"subscription to {chosen} refused")

    def close(self) -> None:
        """Disconnect."""
        self._transport.write(b"\xe0\x00")
        self._transport.close()

    async def connect_session(self, client_id: str, *, clean: bool = True) -> None:
        """Send CONNECT and wait for CONNACK.

        Raises:
            WireError: The broker refuses.
        """
        body = text("MQTT") + b"\x04" + (b"\x02" if clean else b"\x00") + b"\x00\x00" + text(client_id)
        if (await self._review(b"\x10", body))[1]:
            raise WireError(f"connection of {client_id} refused")

    async def _review(self, head: bytes, body: bytes) -> bytes:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(head + length(len(body)) + body)
        async with asyncio.timeout(_START_S):
            return await self._answered

    def _packet(self, head: int, body: bytes) -> None:
        kind = head >> 4
        if kind == _PUBLISH:
            end = 2 + int.from_bytes(body[:2])
            at = end + 2 if head & 6 else end  # a packet id only with QoS 1 or 2
            self._on_message(body[2:end].decode(), body[at:])
            if at > end:
                self._transport.write(b"\x40\x02" + body[end:at])
        elif kind == _PUBACK:
            self.unacknowledged -= 1
        elif kind in (_CONNACK, _SUBACK) and not self._answered.done():
            self._answered.set_result(body)

    def _next_id(self) -> bytes:
        self._number = self._number % _MOST_IDS + 1
        return self._number.to_bytes(2)


async def connect(port: int, client_id: str, on_message: OnMessage, *, clean: bool = True) -> Wire:
    """Connect to a broker on this machine.

    Raises:
        WireError: The broker refuses.
        OSError: No broker listens there.
    """
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(on_message), "127.0.0.1", port)
    await wire.connect_session(client_id, clean=clean)
    return wire


def text(value: str) -> bytes:
    """Encode a string for MQTT."""
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def length(number: int) -> bytes:
    """Encode a packet length for MQTT: seven bits per byte, least significant first."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def split(read: bytearray) -> tuple[int, bytes, int] | None:
    """Return first byte, body and size of the first packet; None if it is incomplete."""
    number, at = 0, 1
    while at < len(read):
        number |= (read[at] & 127) << 7 * (at - 1)
        at += 1
        if not read[at - 1] & 128:
            return (read[0], bytes(read[at : at + number]), at + number) if len(read) >= at + number else None
    return None
