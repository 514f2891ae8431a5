"""The mirror's HTTP server.

    POST /v1/bundles           an Asked as JSON: 200 when the bundle is here, 202 while it is fetched
    GET  /v1/bundles/NAME      a file of the store, or ranges of it

An edge asks again after a 202. However many ask for a bundle, it is fetched once. It is whole and
verified before its first byte is served.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from bus.mqtt.tls import load_certificate
from bus.observability.connection_limit import HEAD_S, LimitedProtocol
from edge.mirror.bundle_store import BundleStore, is_below, released, shown
from edge.models.transfer.mirror_client import PATH, Asked
from schemas.errors import DECODE_ERRORS, GleanerError, PermanentError
from schemas.messages import Release

ANSWER_S = 10.0
"""How long a request waits for a download before it is answered with 202."""
_AT_ONCE, _MOST_FETCHES = 2, 32
_MOST_REQUEST_BYTES = 8192
_REQUEST_S = 10.0
_CONNECTIONS = 256

log = structlog.get_logger()


class MirrorConfig(Struct, frozen=True, kw_only=True):
    """Options of `gleaner mirror`.

    Attributes:
        listen: HOST:PORT.
        origins: URLs of folders; bundles below them are fetched, no others.
        state_dir: folder of the bundles.
        max_bytes: most bytes in it.
        certificate: PEM file of the server's certificate; plain HTTP without it.
        key: PEM file of its key.
    """

    listen: str
    origins: tuple[str, ...]
    state_dir: str
    max_bytes: int
    certificate: str | None = None
    key: str | None = None


class Mirror:
    """Answers requests, and fetches each bundle once.

    Args:
        store: The bundles.
        origins: URLs of folders; bundles below them are fetched, no others.
        tasks: Owns the downloads.
    """

    def __init__(self, store: BundleStore, origins: tuple[str, ...], tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._origins = origins
        self._tasks = tasks
        self._fetching: dict[str, asyncio.Task[GleanerError | OSError | None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._stopped = False

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=_MOST_REQUEST_BYTES)
        app.router.add_post(PATH, self._prepare)
        app.router.add_get(PATH + "/{name}", self._serve)
        return app

    def stop(self) -> None:
        """Let running downloads end; their parts stay for the next start."""
        self._stopped = True

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = self._store.path(request.match_info["name"])
        if path is None or not path.is_file():
            return web.Response(status=HTTPStatus.NOT_FOUND)
        return web.FileResponse(path)  # with ranges; a file that is removed meanwhile is sent to its end

    async def _prepare(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_REQUEST_S):
                body = await request.read()
        except TimeoutError:
            return _said(HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {_REQUEST_S:g} s")
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except DECODE_ERRORS as error:
            return _said(HTTPStatus.BAD_REQUEST, str(error))
        if not is_below(asked.url, self._origins):
            return _said(HTTPStatus.FORBIDDEN, "the URL is below none of the mirror's origins")
        return _said(*await self._answer(released(asked.url, asked.sha256, asked.size_bytes, asked.parts)))

    async def _answer(self, release: Release) -> tuple[HTTPStatus, str]:
        there = HTTPStatus.OK, f"{PATH}/{release.sha256}.tar"
        if await asyncio.to_thread(self._store.has, release):
            return there
        fetching = self._fetching.get(release.sha256)
        if fetching is None:
            if len(self._fetching) >= _MOST_FETCHES or self._stopped:
                return HTTPStatus.SERVICE_UNAVAILABLE, "the mirror fetches too many bundles now"
            fetching = self._tasks.create_task(self._fetch(release), name="mirror.fetch")
            self._fetching[release.sha256] = fetching
        done, _ = await asyncio.wait([fetching], timeout=ANSWER_S)
        if not done:
            return HTTPStatus.ACCEPTED, "fetching"
        if (error := fetching.result()) is None:
            return there
        permanent = isinstance(error, PermanentError)
        return HTTPStatus.UNPROCESSABLE_ENTITY if permanent else HTTPStatus.BAD_GATEWAY, str(error)

    async def _fetch(self, release: Release) -> GleanerError | OSError | None:
        """Fetch a bundle; return what prevented it."""
        try:
            async with self._places:
                # Another download of it may have ended since the request looked.
                if await asyncio.to_thread(self._store.has, release):
                    return None
                traffic = await asyncio.to_thread(self._store.fetch, release, lambda: self._stopped)
        except (GleanerError, OSError) as error:
            log.warning("mirror.fetch_failed", url=shown(release), reason=str(error))
            return error
        finally:
            del self._fetching[release.sha256]
        log.info(
            "mirror.bundle_fetched",
            url=shown(release),
            sha256=release.sha256,
            fetched_bytes=traffic.fetched_bytes,
            reused_bytes=traffic.reused_bytes,
        )
        return None


def _said(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=text)


@asynccontextmanager
async def serving(mirror: Mirror, address: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve a mirror for the length of a block, entered with its port.

    Bounded: beyond `_CONNECTIONS`, the oldest one whose request has not begun gives way, else the oldest; one
    that says nothing is closed after 5 s. An edge whose connection ends goes on with its bundle's own URL.

    Args:
        mirror: What answers.
        address: HOST:PORT.
        tls: Of the server's certificate; None for plain HTTP.

    Raises:
        OSError: The address is in use.
    """
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(mirror.app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        assert runner.server is not None  # after `setup`
        # Not a TCPSite: aiohttp has no deadline for the head of a request, and no bound of connections.
        server = await asyncio.get_running_loop().create_server(
            LimitedProtocol.factory(runner.server, _CONNECTIONS),
            host.strip("[]"),
            int(port),
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HEAD_S,
        )
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def run(config: MirrorConfig) -> None:
    """Serve until cancelled.

    Raises:
        OSError: The address is in use, or a file cannot be read.
    """
    store = BundleStore(Path(config.state_dir), config.max_bytes)
    async with asyncio.TaskGroup() as tasks:
        mirror = Mirror(store, config.origins, tasks)
        async with serving(mirror, config.listen, _tls(config)):
            log.info("mirror.listening", address=config.listen, origins=list(config.origins))
            try:
                await asyncio.Event().wait()
            finally:
                mirror.stop()


def _tls(config: MirrorConfig) -> ssl.SSLContext | None:
    """Return the context of the server's certificate, None for plain HTTP.

    Raises:
        ConfigError: The files cannot be used.
    """
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, config.certificate, config.key)
    return context
