"""Web servers on loopback that give files, as any static file server does, or what a test wants instead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

_PIECE_BYTES = 10_000

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def web_server(answer: Answer) -> AsyncIterator[str]:
    """Run a web server that answers every path with `answer`; yields its address."""
    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def dripping() -> AsyncIterator[str]:
    """A web server that sends a byte every 20 ms; yields its URL."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.02)
        return response

    async with web_server(drip) as address:
        yield f"{address}/bundle.tar"


class FileServer:
    """A static file server, with ranges as nginx and S3 have them.

    Args:
        folder: Its files are served.

    Attributes:
        requests: Path and `Range` of each request.
        sent_bytes: Sum of the bodies.
        limit_bytes: Close the connection after this many bytes of bodies; None: never.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.requests: list[tuple[str, str | None]] = []
        self.sent_bytes = 0
        self.limit_bytes: int | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file or a range of it."""
        self.requests.append((request.match_info["name"], request.headers.get("Range")))
        path = self._folder / request.match_info["name"]
        if not path.is_file():
            return web.Response(status=404)
        content, span = path.read_bytes(), request.http_range
        body = content[span]
        headers = {"Content-Length": str(len(body))}
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        await response.prepare(request)
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            if self.limit_bytes is not None and self.sent_bytes + len(piece) > self.limit_bytes:
                assert request.transport is not None
                request.transport.close()  # what was written before arrives
                return response
            await response.write(piece)
            self.sent_bytes += len(piece)
        return response
