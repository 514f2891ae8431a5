"""A small MQTT 3.1.1 client for load: it costs little enough for a thousand of them to share a process.

Only what a simulated device needs: QoS 1 both ways, no will, no keep-alive, no reconnection; it writes what
it is given and passes on what comes. Not for anything but measurements on loopback.
"""

import asyncio
from collections.abc import Callable
from typing import cast

Take = Callable[[str, bytes], None]
"""Gets the topic and payload of each message."""

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_MOST_IDS = 65_535
_START_S = 10.0


class WireError(Exception):
    """The broker refused or hung up."""


class Wire(asyncio.Protocol):
    """One connection; make it with `connect`.

    Args:
        take: Gets each message; it is acknowledged when that returns.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._read = bytearray()
        self._number = 0
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.unacknowledged = 0
        """Messages that the broker has not acknowledged."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls this."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take whole packets; asyncio calls this."""
        self._read += data
        while (packet := split(self._read)) is not None:
            head, body, size_bytes = packet
            del self._read[:size_bytes]
            self._packet(head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits for an answer; asyncio calls this."""
        if not self._answered.done():
            self._answered.set_exception(WireError(f"the broker hung up: {exc}"))
            self._answered.exception()  # where nobody waits that is no news

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1, without waiting for anything."""
        name = topic.encode()
        self.unacknowledged += 1
        head = b"".join((len(name).to_bytes(2), name, self._next_id()))
        self._transport.writelines((b"\x32", length(len(head) + len(payload)), head, payload))

    async def subscribe(self, chosen: str) -> None:
        """Subscribe at QoS 1.

        Raises:
            WireError: The broker refuses.
        """
        granted = await self._ask(b"\x82", self._next_id() + text(chosen) + b"\x01")
        if granted[-1] > 1:
            raise WireError(f"{chosen}: refused")

    def close(self) -> None:
        """Disconnect."""
        self._transport.write(b"\xe0\x00")
        self._transport.close()

    async def hello(self, client_id: str, *, clean: bool = True) -> None:
        """Introduce oneself.

        Raises:
            WireError: The broker refuses.
        """
        body = text("MQTT") + b"\x04" + (b"\x02" if clean else b"\x00") + b"\x00\x00" + text(client_id)
        if (await self._ask(b"\x10", body))[1]:
            raise WireError(f"{client_id}: refused")

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(head + length(len(body)) + body)
        async with asyncio.timeout(_START_S):
            return await self._answered

    def _packet(self, head: int, body: bytes) -> None:
        kind = head >> 4
        if kind == _PUBLISH:
            end = 2 + int.from_bytes(body[:2])
            at = end + 2 if head & 6 else end
            self._take(body[2:end].decode(), body[at:])
            if at > end:
                self._transport.write(b"\x40\x02" + body[end:at])
        elif kind == _PUBACK:
            self.unacknowledged -= 1
        elif kind in (_CONNACK, _SUBACK) and not self._answered.done():
            self._answered.set_result(body)

    def _next_id(self) -> bytes:
        self._number = self._number % _MOST_IDS + 1
        return self._number.to_bytes(2)


async def connect(port: int, client_id: str, take: Take, *, clean: bool = True) -> Wire:
    """Connect to a broker on this machine.

    Raises:
        WireError: The broker refuses.
        OSError: Nobody listens there.
    """
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(take), "127.0.0.1", port)
    await wire.hello(client_id, clean=clean)
    return wire


def text(value: str) -> bytes:
    """Return a string as MQTT writes it."""
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def length(number: int) -> bytes:
    """Return a packet's length as MQTT writes it: seven bits a byte, the least first."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def split(read: bytearray) -> tuple[int, bytes, int] | None:
    """Return the first byte, the body and the whole size of the first packet, None if it is not all there."""
    number, at = 0, 1
    while at < len(read):
        number |= (read[at] & 127) << 7 * (at - 1)
        at += 1
        if not read[at - 1] & 128:
            return (read[0], bytes(read[at : at + number]), at + number) if len(read) >= at + number else None
    return None
