"""Probes over HTTP for an orchestrator: `GET /livez` and `GET /readyz`.

Alive means that the event loop still turns: without it there is no answer. Ready means a working connection
to the broker and nothing degraded; otherwise the answer is 503 with the reason.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import structlog

from schemas.errors import PermanentError

log = structlog.get_logger()

_REQUEST_S = 5.0
_HEAD_BYTES = 8192
_CONNECTIONS = 16


class ProbesError(PermanentError):
    """The probes cannot be offered at this address."""


class Probes:
    """Answers the probes of one process.

    Args:
        address: `HOST:PORT` to listen on.
        unready: Returns why the component is not ready, or None if it is.
    """

    def __init__(self, address: str, unready: Callable[[], str | None]) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._unready = unready
        self._places = asyncio.Semaphore(_CONNECTIONS)

    async def run(self) -> None:
        """Answer until cancelled.

        Raises:
            ProbesError: The address is taken, or not this machine's.
        """
        try:
            server = await asyncio.start_server(self._converse, self._host, self._port, limit=_HEAD_BYTES)
        except OSError as error:
            address = f"{self._host}:{self._port}"
            raise ProbesError(f"probes {address}", expected="an address to listen on", got=error) from None
        async with server:
            log.info("probes.listening", port=server.sockets[0].getsockname()[1])
            await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; who sends none, or too much, is hung up on."""
        try:
            async with self._places, asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(response(head, self._unready()))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


def response(head: bytes, unready: str | None) -> bytes:
    """Return the answer to a request.

    Args:
        head: Request line and headers.
        unready: Why the component is not ready, or None.
    """
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, "GET alone")
    if path == b"/livez":
        return _text(HTTPStatus.OK, "alive")
    if path == b"/readyz":
        return _text(HTTPStatus.OK if unready is None else HTTPStatus.SERVICE_UNAVAILABLE, unready or "ready")
    return _text(HTTPStatus.NOT_FOUND, "/livez or /readyz")


def _text(status: HTTPStatus, body: str) -> bytes:
    content = f"{body}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content
