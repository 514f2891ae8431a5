"""The console as one process: broker connection, delivery of labels, and the web server."""

import asyncio
import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from bus import systemd
from bus.files.cache_folder import expanded
from bus.health import HealthServer
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.observability import metric_catalogue as catalogue
from bus.observability.connection_limit import HEAD_S, ConnectionLimit, LimitedProtocol
from bus.observability.exposition import Exposition
from bus.observability.measurements import (
    Measurement,
    certificate_end,
    certificate_measurements,
    disk_measurements,
)
from bus.outbox.damage import DamageLog
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from cloud.dataset.store import Store
from cloud.labeling.similarity import SimilarPhotos
from cloud.registry.registry import Registry
from console.access.account_changes import MIGRATIONS as SEEN_ACCOUNT_MIGRATIONS
from console.access.account_changes import record_account_changes
from console.access.accounts import Accounts
from console.access.audit_trail import AuditTrail
from console.access.login import ADDRESS_FILE, Login
from console.access.sessions import Sessions
from console.analysis.insights import InsightDesk
from console.config import ConsoleConfig
from console.context import Console
from console.exposure import check_exposure, hosts_of
from console.live.broadcast import Broadcast
from console.live.listener import Listener
from console.live.photo_previews import PhotoPreviews
from console.live.state import LiveState
from console.photos.picture_cache import PictureCache, forgotten, taken_out
from console.review.desk import ReviewDesk
from console.review.label_sender import HELD_MIGRATIONS, LabelSender
from console.review.leases import Leases
from console.web.app import create_app
from console.web.guard import Cookie
from schemas.errors import PermanentError, TransientError
from schemas.topics import CLOUD

log = structlog.get_logger()

MIGRATIONS = {
    "outbox": Outbox.MIGRATIONS,
    "held_label": HELD_MIGRATIONS,
    "session": Sessions.MIGRATIONS,
    "audit": AuditTrail.MIGRATIONS,
    "seen_account": SEEN_ACCOUNT_MIGRATIONS,
}
_BACKLOG = 128
_MAX_CONNECTIONS = 256
_GRACE_S = 3
HANDSHAKE_S = HEAD_S
"""How long a client may take to begin TLS, in seconds; until then it counts for no bound."""
_DATASET_S = 5.0


async def run(
    config: ConsoleConfig,
    password: str | None = None,
    on_ready: Callable[[str, Console], None] | None = None,
) -> None:
    """Run a console until cancelled. Safe to cancel: labels that are not recorded are sent by the next run.

    Args:
        config: The configuration.
        password: Of the broker's user, if it asks for one.
        on_ready: Called once it is served, with the address for a browser.

    Raises:
        PermanentError: It cannot listen there, or would be open to a network without protection.
        TransientError: The dataset cannot be opened now.
        StorageError: The state folder cannot be used, for example because another console uses it.
    """
    check_exposure(config)
    store = await asyncio.to_thread(Store.open, config.dataset)
    counters, state = Counters(), Path(config.state_dir)
    bus = Bus(
        config.broker,
        f"gleaner-cloud-{config.name}",
        password=password,
        presence=Presence(CLOUD, config.name, dataset=store.location),
        counters=counters,
    )
    damage = DamageLog(counters)
    with _listening(config.listen) as listening:
        async with Database(state / "console.db", MIGRATIONS, damage=damage) as database:
            parts = _Parts(config, bus, store, database, password)
            await parts.load()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(bus.run(), name="console.bus")
                tasks.create_task(damage.run(bus.report_degraded), name="console.damage")
                tasks.create_task(parts.listener.run(), name="console.listener")
                tasks.create_task(parts.sender.run(), name="console.labels")
                tasks.create_task(_watch_dataset(parts.console), name="console.dataset")
                tasks.create_task(parts.console.desk.run(), name="console.review")
                tasks.create_task(parts.console.insights.run(), name="console.insights")
                tasks.create_task(
                    systemd.report(bus.unready_reason, database.answered), name="console.systemd"
                )
                if (accounts := parts.console.login.accounts) is not None:
                    changes = record_account_changes(accounts, database)
                    tasks.create_task(changes, name="console.accounts")
                if config.probes is not None:
                    metrics = Exposition("console", bus, parts.measurements)
                    health = HealthServer(config.probes, bus.unready_reason, metrics.page)
                    tasks.create_task(health.run(), name="console.probes")
                await _serve(config, parts.console, listening, on_ready)


class _Parts:
    """The parts of the console, put together."""

    def __init__(
        self, config: ConsoleConfig, bus: Bus, store: Store, database: Database, password: str | None
    ) -> None:
        state, broadcast, previews = LiveState(), Broadcast(), PhotoPreviews()
        self.sender = LabelSender(
            database, bus, config.outbox, undo_s=config.undo_s, on_recorded=self._recorded
        )
        leases, registry = Leases(config.lease_s), Registry(Path(config.models))
        cache = expanded(config.cache)
        tls = config.broker.tls
        self.console = Console(
            config=config,
            bus=bus,
            live=state,
            previews=previews,
            broadcast=broadcast,
            store=store,
            registry=registry,
            pictures=PictureCache(store, Path(config.state_dir) / "thumbnails", config.cache_bytes),
            desk=ReviewDesk(store, self.sender, leases, as_person=tls is not None),
            sessions=Sessions(database, config.session_s),
            login=Login(
                accounts=None if config.accounts is None else Accounts(Path(config.accounts)),
                proxy=config.proxy,
                address_file=Path(config.state_dir) / ADDRESS_FILE,
                person=_own_name(),
            ),
            audit=AuditTrail(database),
            insights=InsightDesk(store, registry, cache, lambda: broadcast.changed("insights")),
            similar=SimilarPhotos(store),
            password=password,
        )
        self.listener = Listener(bus, state, broadcast, previews, self.sender.take_event)

    async def load(self) -> None:
        """Load what earlier runs left on the disk."""
        await self.sender.load()
        await self.console.sessions.load()
        await asyncio.to_thread(self.console.pictures.open)

    def measurements(self) -> Iterator[Measurement]:
        """Yield what `/metrics` has in addition to the Status."""
        config = self.console.config
        yield Measurement(catalogue.LABELS_UNRECORDED, len(self.sender))
        yield Measurement(catalogue.OPEN_PAGES, len(self.console.broadcast))
        yield from self.sender.measurements()
        yield from disk_measurements(config.state_dir)
        yield from certificate_measurements(config.broker)
        if config.tls is not None and (ends_at := certificate_end(config.tls.certificate)) is not None:
            yield Measurement(catalogue.SERVER_CERTIFICATE_END, ends_at, ("server",))

    def _recorded(self, photo_id: str, outcome: str) -> None:
        log.debug("label.recorded", photo_id=photo_id, outcome=outcome)
        self.console.desk.recorded(photo_id)
        self.console.broadcast.changed("labels")


async def _watch_dataset(console: Console) -> None:
    """Notify open pages of new photos; drop the thumbnails of photos that were taken out."""
    version = -1
    while True:
        try:
            newest = await asyncio.to_thread(lambda: console.store.version)
            if newest != version:
                gone = await asyncio.to_thread(lambda: forgotten(console.store, console.pictures.kept()))
                await asyncio.to_thread(console.pictures.forget, gone)
                # Most of these were never in the dataset.
                passed_by = console.previews.kept()
                console.previews.forget(await asyncio.to_thread(taken_out, console.store, passed_by))
                version = newest
                console.broadcast.changed("dataset")
                console.insights.dataset_changed()
            if console.similar.wanted:
                await asyncio.to_thread(console.similar.refresh)  # returns at once if nothing came
            await console.bus.report_recovered("dataset")
        except TransientError as error:
            await console.bus.report_degraded("dataset", str(error))
        await asyncio.sleep(_DATASET_S)


async def _serve(
    config: ConsoleConfig,
    console: Console,
    listening: socket.socket,
    on_ready: Callable[[str, Console], None] | None,
) -> None:
    """Serve the pages until cancelled."""
    port = listening.getsockname()[1]
    url = _url(config, port)
    cookie = Cookie(f"gleaner-{port}", secure=config.tls is not None, max_age_s=config.session_s)
    app = create_app(console, hosts=hosts_of(config), cookie=cookie)
    server = _Server(_uvicorn_config(config, app))
    if console.login.by_address:
        url = await asyncio.to_thread(console.login.new_address, url)
    log.info("console.listening", port=port, hosts=sorted(hosts_of(config)))
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="console.serve")
    try:
        if on_ready is not None:
            on_ready(url, console)
        await asyncio.shield(serving)
    finally:
        # Streams first: uvicorn waits for open answers.
        console.broadcast.close()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves signals to the command that runs it, and bounds the time of a TLS handshake."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does, which lets a client wait a minute before its handshake."""
        loop, config = asyncio.get_running_loop(), self.config
        await self.lifespan.startup()

        def make() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn calls it
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        self.servers = [
            await loop.create_server(
                make,
                sock=one,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=HANDSHAKE_S if config.ssl else None,
            )
            for one in sockets or ()
        ]
        self.started = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _uvicorn_config(config: ConsoleConfig, app: Starlette) -> uvicorn.Config:
    limit = ConnectionLimit(_MAX_CONNECTIONS - 1)
    return uvicorn.Config(
        app,
        # uvicorn has no deadline for the head of a request: silent connections are closed for new ones.
        http=lambda **parts: LimitedProtocol(H11Protocol(**parts), limit),  # type: ignore[arg-type]  # it only calls it
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the guard reads them, and knows whom to believe
        backlog=_BACKLOG,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=32_768,
        ssl_certfile=None if config.tls is None else config.tls.certificate,
        ssl_keyfile=None if config.tls is None else config.tls.key,
    )


@contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    """Listen on an address for the length of a block.

    Raises:
        PermanentError: It is in use, or is not an address of this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:  # UnicodeError: a name that no resolver takes
        raise PermanentError(
            f"cannot serve the console on {address}: {getattr(error, 'strerror', None) or error}",
            hint="choose another address with --listen; port 0 takes any free one",
        ) from None
    with listening:
        listening.setblocking(False)  # noqa: FBT003  # positional only
        yield listening


def _url(config: ConsoleConfig, port: int) -> str:
    host = config.hosts[0] if config.hosts else config.listen.rpartition(":")[0]
    return f"{'http' if config.tls is None else 'https'}://{host}:{port}"


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"
