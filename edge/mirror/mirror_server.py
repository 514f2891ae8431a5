"""The mirror's HTTP server.

    POST /v1/bundles           an Asked as JSON: 200 when the bundle is here, 202 while it is fetched
    GET  /v1/bundles/NAME      a file of the store, or ranges of it

An edge asks again after a 202. However many ask for a bundle, it is fetched once. It is whole and
verified before its first byte is served. Where clients need certificates, only those of handlers are served.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from bus import systemd
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.tls import server_context
from bus.security import acl
from edge.mirror.bundle_store import BundleStore, is_below, released, shown
from edge.mirror.listener import allow_files, serving
from edge.mirror.metrics import Metrics
from edge.models.transfer.bundle_source import DiskError
from edge.models.transfer.mirror_client import PATH, Asked
from schemas.errors import DECODE_ERRORS, GleanerError, PermanentError
from schemas.messages import Release
from schemas.text import without_secrets

ANSWER_S = 10.0
"""How long a request waits for a download before it is answered with 202."""
_AT_ONCE, _MOST_FETCHES = 2, 32
_MOST_REQUEST_BYTES = 8192
_REQUEST_S = 10.0

log = structlog.get_logger()


class MirrorConfig(Struct, frozen=True, kw_only=True):
    """What `gleaner mirror` is started with.

    Attributes:
        listen: HOST:PORT.
        origins: URLs of folders; bundles below them are fetched, no others.
        state_dir: folder of the bundles.
        max_bytes: most bytes in it.
        certificate: PEM file of the server's certificate; plain HTTP without it.
        key: PEM file of its key.
        clients: PEM file of the CA by which edges have certificates; without it they need none.
        crl: PEM file of the edges' certificates that are revoked.
        probes: HOST:PORT of /livez, /readyz and /metrics.
    """

    listen: str
    origins: tuple[str, ...]
    state_dir: str
    max_bytes: int
    certificate: str | None = None
    key: str | None = None
    clients: str | None = None
    crl: str | None = None
    probes: str | None = None


class Mirror:
    """Answers requests, and fetches each bundle once.

    Args:
        store: The bundles.
        origins: URLs of folders; bundles below them are fetched, no others.
        tasks: Owns the downloads.
        counters: Of downloads and refused clients.
        edges_only: Whether to serve only clients with the certificate of a handler.
    """

    def __init__(
        self,
        store: BundleStore,
        origins: tuple[str, ...],
        tasks: asyncio.TaskGroup,
        counters: Counters | None = None,
        *,
        edges_only: bool = False,
    ) -> None:
        self._store = store
        self._counters = counters or Counters()
        self._origins = origins
        self._tasks = tasks
        self._edges_only = edges_only
        self._fetching: dict[str, asyncio.Task[GleanerError | OSError | None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._unready_reason: str | None = None
        self._stopped = False

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(
            client_max_size=_MOST_REQUEST_BYTES, middlewares=[self._for_edges] if self._edges_only else []
        )
        app.router.add_post(PATH, self._prepare)
        app.router.add_get(PATH + "/{name}", self._serve)
        return app

    def unready_reason(self) -> str | None:
        """Return why the last download could not be stored, None if it could; an origin may be away."""
        return self._unready_reason

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
            self._counters.add("bundle.failed")
            log.warning("mirror.fetch_failed", url=shown(release), reason=str(error))
            if isinstance(error, DiskError | OSError):
                self._unready_reason = str(error)
            return error
        finally:
            del self._fetching[release.sha256]
        self._unready_reason = None
        self._counters.add("bundle.fetched")
        self._counters.add("bundle.fetched_bytes", traffic.fetched_bytes)
        log.info(
            "mirror.bundle_fetched",
            url=shown(release),
            sha256=release.sha256,
            fetched_bytes=traffic.fetched_bytes,
            reused_bytes=traffic.reused_bytes,
        )
        return None

    @web.middleware
    async def _for_edges(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse clients that are not handlers: devices and bridges have certificates of the same CA."""
        subject = (request.get_extra_info("peercert") or {}).get("subject", ())
        names = [value for part in subject for kind, value in part if kind == "commonName"]
        if len(names) != 1 or not acl.is_handler(names[0]):
            self._counters.add("client.refused")
            log.warning("mirror.client_refused", name=names[0] if names else None)
            return _said(HTTPStatus.FORBIDDEN, "only an edge's certificate is served")
        return await handler(request)


def _said(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=text)


async def run(config: MirrorConfig) -> None:
    """Serve until cancelled.

    Raises:
        OSError: A file cannot be read.
        MirrorError, HealthServerError: An address is in use.
        ConfigError: A certificate or key cannot be used.
    """
    tls = None
    if config.certificate is not None:
        tls = server_context(config.certificate, config.key, config.clients, config.crl)
    store = BundleStore(Path(config.state_dir), config.max_bytes)
    allow_files()
    async with asyncio.TaskGroup() as tasks:
        counters = Counters()
        mirror = Mirror(store, config.origins, tasks, counters, edges_only=config.clients is not None)
        async with serving(mirror.app(), config.listen, tls):
            log.info(
                "mirror.listening", address=config.listen, origins=[*map(without_secrets, config.origins)]
            )
            try:
                if config.probes is not None:
                    metrics = Metrics(counters, config.state_dir, config.certificate)
                    probes = HealthServer(
                        config.probes,
                        mirror.unready_reason,
                        lambda: metrics.page(ready=mirror.unready_reason() is None),
                    )
                    tasks.create_task(probes.run(), name="mirror.probes")
                tasks.create_task(systemd.report(mirror.unready_reason), name="mirror.systemd")
                await asyncio.Event().wait()
            finally:
                mirror.stop()
