"""HTTP health endpoints for an orchestrator: `GET /livez` and `GET /readyz`; metrics: `GET /metrics`.

Alive: the event loop runs, so the request is answered. Ready: the broker connection works and no component is
degraded; otherwise 503 with the reason.
"""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus

import structlog

from bus.config import host_and_port
from bus.observability.connection_limit import HEAD_S, ConnectionLimit
from schemas.errors import PermanentError
from schemas.text import listed

log = structlog.get_logger()

METRICS_PATH = "/metrics"
_HEAD_BYTES = 8192
_CONNECTIONS = 16


class HealthServerError(PermanentError):
    """The health endpoints cannot be served at this address."""


class HealthServer:
    """HTTP server for the health endpoints of one process.

    Args:
        address: `HOST:PORT` to listen on.
        unready_reason: Returns why the process is not ready, or None if it is.
        metrics: Returns the metrics in Prometheus' text format; None without any.
        metrics_path: Where they are.
    """

    def __init__(
        self,
        address: str,
        unready_reason: Callable[[], str | None],
        metrics: Callable[[], bytes] | None = None,
        metrics_path: str = METRICS_PATH,
    ) -> None:
        self._host, self._port = host_and_port(address)
        self._address = address
        self._unready_reason = unready_reason
        self._pages = {} if metrics is None else {metrics_path.encode(): metrics}
        self._limit = ConnectionLimit(_CONNECTIONS)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            HealthServerError: The address is in use, or is not an address of this machine.
        """
        try:
            server = await asyncio.start_server(self._serve, self._host, self._port, limit=_HEAD_BYTES)
        # UnicodeError: a name that no resolver takes; OverflowError: a port above 65535.
        except (OSError, UnicodeError, OverflowError) as error:
            raise HealthServerError(
                f"cannot serve health probes on {self._address}: {getattr(error, 'strerror', None) or error}",
                hint="choose another address with `probes`",
            ) from None
        async with server:
            log.info("health.listening", port=server.sockets[0].getsockname()[1])
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; close the connection if it is late or too large."""
        transport = writer.transport
        self._limit.opened(transport)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                self._limit.begun(transport)
                writer.write(response(head, self._unready_reason(), self._pages))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that disconnects, is too slow or sends too much is not our error
        finally:
            self._limit.closed(transport)
            writer.close()


def response(
    head: bytes, unready_reason: str | None, pages: Mapping[bytes, Callable[[], bytes]] | None = None
) -> bytes:
    """Return the HTTP response to a request.

    Args:
        head: Request line and headers, any bytes.
        unready_reason: Why the process is not ready, or None if it is.
        pages: Metrics by path; called only for a request of them.
    """
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is allowed")
    if path == b"/livez":
        return _text(HTTPStatus.OK, "alive")
    if path == b"/readyz":
        if unready_reason is None:
            return _text(HTTPStatus.OK, "ready")
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, unready_reason)
    pages = pages or {}
    if path in pages:
        return _answer(HTTPStatus.OK, pages[path](), "text/plain; version=0.0.4; charset=utf-8")
    return _text(
        HTTPStatus.NOT_FOUND, f"only {listed(['/livez', '/readyz', *map(bytes.decode, pages)])} exist"
    )


def _text(status: HTTPStatus, body: str) -> bytes:
    return _answer(status, f"{body}\n".encode(), "text/plain; charset=utf-8")


def _answer(status: HTTPStatus, content: bytes, content_type: str) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"  # one request per connection
    )
    return head.encode() + content
