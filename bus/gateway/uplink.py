"""Forward samples, statuses, events and feedback of the edge nodes from the Router to the cloud's broker."""

import asyncio
import logging
import time
import zlib
from dataclasses import replace
from http import HTTPStatus
from typing import NamedTuple

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bus.backoff import backoff
from bus.config import host_and_port
from bus.gateway.byte_queue import BoundedQueue, QueuedMessage
from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.restart_detector import RestartDetector
from bus.gateway.routes import Route, find_route
from bus.gateway.rules.rule_probe import probe_event
from bus.mqtt.client import Bus
from bus.mqtt.connection.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from bus.observability.connection_limit import LimitedProtocol
from schemas.codec import decode, encode
from schemas.errors import CodecError, PermanentError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Receipt, Status
from schemas.topics import CLOUD, EVENT, SAMPLE

log = structlog.get_logger()

_BODY_S = 10.0
_SHUTDOWN_S = 1.0
_CONCURRENT_BODIES = 64
_CONNECTIONS = 96
_RETRY_CAP_S = 5.0
_LOGGED_PATH_CHARS = 200


class UplinkError(PermanentError):
    """The gateway cannot listen on its address."""


class Answer(NamedTuple):
    """HTTP answer to the Router, which only logs it, and the last part of the counter's name."""

    status: HTTPStatus
    text: str
    counted: str


class Uplink:
    """HTTP server that publishes what the Router POSTs, on the topic that the edge used.

    The Router POSTs each message once, concurrently and without limit, and takes any answer for success. So a
    message is checked, queued and answered at once; if the queue is full it is refused with 503, and the
    edge's outbox sends it again.

    Args:
        config: Nodes and limits.
        bus: Client of the cloud's broker; its `run` is started elsewhere.
        downlink: Gets receipts for rejected samples, and nodes that have returned.
    """

    def __init__(self, config: GatewayConfig, bus: Bus, downlink: Downlink) -> None:
        self._config = config
        self._bus = bus
        self._downlink = downlink
        self._counters = bus.counters
        self._restarts = RestartDetector(config.silent_s)
        self._queues = {node: BoundedQueue(config.queue_bytes) for node in config.nodes}
        self._started_at = time.monotonic()
        self._carried_at: dict[Route, float] = {}
        self._receiving = 0

    async def run(self) -> None:
        """Receive and publish until cancelled.

        Cancelling loses the queued messages; the edges send samples again.

        Raises:
            UplinkError: The address is in use, or is not an address of this machine.
        """
        application = web.Application(client_max_size=self._config.max_body_bytes)
        application.router.add_post("/up/{node}/{kind}", self._handle)
        application.router.add_post("/up/{node}/{kind}/{device}", self._handle)
        runner = web.AppRunner(
            application, access_log=None, logger=self._server_log(), shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        try:
            # Not by `async with`, which from Python 3.12 on waits for connections that `cleanup` closes.
            server = await self._listen(runner)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for node, queue in self._queues.items():
                        tasks.create_task(self._publish_queued(queue), name=f"up.{node}")
            finally:
                server.close()
        finally:
            await runner.cleanup()

    def _server_log(self) -> logging.Logger:
        """Return a logger for aiohttp, which would log a request that is not HTTP with a traceback."""

        def is_ours(record: logging.LogRecord) -> bool:
            error = record.exc_info[1] if record.exc_info else None
            if not isinstance(error, HttpProcessingError | web.RequestPayloadError | zlib.error):
                return True
            self._counters.add("up.none.malformed")
            log.warning("up.refused", path=None, reason=_first_line(error)[:_LOGGED_PATH_CHARS])
            return False

        logger = logging.getLogger(f"aiohttp.server.{self._config.name}")
        logger.filters[:] = [is_ours]
        return logger

    def is_silent(self, node: str) -> bool:
        """Return True if nothing has come from a node for `silent_s`: not even a Status or a probe."""
        heard_at = (at for route, at in self._carried_at.items() if route.node == node)
        return self._long_ago(max(heard_at, default=self._started_at))

    def carries(self, route: Route) -> bool:
        """Return True if something has come by a route within `silent_s`: its Rule works."""
        return route in self._carried_at and not self._long_ago(self._carried_at[route])

    def _long_ago(self, at: float) -> bool:
        return time.monotonic() - at > self._config.silent_s

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        host, port = host_and_port(self._config.listen)
        assert runner.server is not None  # after `setup`
        loop = asyncio.get_running_loop()
        try:
            # Not a TCPSite: aiohttp has no deadline for the head of a request, and no bound of connections.
            server = await loop.create_server(
                LimitedProtocol.factory(runner.server, _CONNECTIONS),
                host,
                port,
                reuse_address=True,
            )
        # UnicodeError: a name that no resolver takes; OverflowError: a port above 65535.
        except (OSError, UnicodeError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UplinkError(
                f"the gateway cannot listen on {self._config.listen}: {reason}",
                hint="choose another address with --listen",
            ) from None
        log.info("up.listening", port=server.sockets[0].getsockname()[1])
        return server

    async def _handle(self, request: web.Request) -> web.Response:
        route = find_route(**request.match_info)
        answer = Answer(HTTPStatus.NOT_FOUND, "no route for this path", "unknown")
        if route is not None and route.node in self._queues:
            answer = await self._receive(route, request)
        kind = "none" if route is None else route.topic.kind
        self._counters.add(f"up.{kind}.{answer.counted}")
        if answer.status >= HTTPStatus.BAD_REQUEST:
            log.warning("up.refused", path=request.path[:_LOGGED_PATH_CHARS], reason=answer.text)
        # The Router leaks a connection for each answer without a body, and opens a new one for each message.
        response = web.Response(status=answer.status, text=f"{answer.text}\n")
        response.force_close()
        return response

    async def _receive(self, route: Route, request: web.Request) -> Answer:
        """Read a body, unless too many are being read or too much waits already."""
        # Without the device: senders choose its name, so there is no bound on the number of names.
        self._carried_at[replace(route, device=None)] = time.monotonic()
        queue = self._queues[route.node]
        # Checked before the body is read: its memory is not bounded by the queue yet.
        if self._receiving >= _CONCURRENT_BODIES or not queue.has_room(request.content_length or 0):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many messages at once", "full")
        self._receiving += 1
        try:
            async with asyncio.timeout(_BODY_S):
                body = await request.read()
        except (TimeoutError, ConnectionError):
            return Answer(HTTPStatus.REQUEST_TIMEOUT, f"no complete body within {_BODY_S:g} s", "timed_out")
        except (web.RequestPayloadError, HttpProcessingError, zlib.error) as error:
            return Answer(
                HTTPStatus.BAD_REQUEST, f"the body cannot be read: {_first_line(error)}", "malformed"
            )
        except web.HTTPRequestEntityTooLarge:
            limit = f"the body exceeds {self._config.max_body_bytes} bytes"
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, limit, "malformed")
        finally:
            self._receiving -= 1
        return self._accept(route, body, queue)

    def _accept(self, route: Route, body: bytes, queue: BoundedQueue) -> Answer:
        """Check a message and queue it."""
        try:
            message = self._check(route, body)
        except CodecError as error:
            self._refuse(route, error)
            return Answer(HTTPStatus.BAD_REQUEST, str(error), "malformed")
        if not queue.put(message):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many messages wait", "full")
        return Answer(HTTPStatus.OK, "queued", "accepted")

    def _check(self, route: Route, body: bytes) -> QueuedMessage:
        """Return what to publish for a body; send policy and release again if it shows a returned edge.

        Raises:
            CodecError: The body is not a valid message of its topic.
        """
        if (event := probe_event(body, route, self._config.name)) is not None:
            topic = EVENT.name(node=CLOUD, name=self._config.name)
            return QueuedMessage(topic, encode(EVENT, event), retain=False)
        message = decode(route.topic, body, route.names)
        # The body itself is published, not the decoded message: it may have fields of a newer version.
        if isinstance(message, Status) and self._restarts.has_returned(message, time.monotonic()):
            log.info("up.edge_returned", node=route.node, run_id=message.run_id)
            self._downlink.node_returned(route.node)
        # The Router drops the retain flag, so it is taken from the topic.
        return QueuedMessage(route.name, body, retain=route.topic.retain)

    def _refuse(self, route: Route, error: CodecError) -> None:
        """Answer a sample that can never be stored, as the collector would; else it is resent endlessly."""
        if route.topic is SAMPLE and error.photo_id is not None:
            self._downlink.send_receipt(
                Receipt(
                    photo_id=error.photo_id,
                    node=route.node,
                    status="refused",
                    reason=str(error)[:MAX_TEXT_CHARS],
                    received_at_ms=now_ms(),
                )
            )

    async def _publish_queued(self, queue: BoundedQueue) -> None:
        """Publish the messages of a queue in order, each until the broker acknowledges it."""
        while True:
            message = await queue.get()
            for delay_s in backoff(cap_s=_RETRY_CAP_S):
                await self._bus.connected()
                try:
                    await self._bus.publish_bytes(message.topic, message.payload, retain=message.retain)
                except BrokerConnectionError as error:
                    log.debug("up.publish_failed", topic=message.topic, error=str(error))
                    await asyncio.sleep(delay_s)
                except PermanentError as error:  # larger than a limit of the broker
                    self._counters.add("up.set_aside")
                    log.error("up.message_refused", topic=message.topic, error=str(error))  # noqa: TRY400
                    break
                else:
                    break


def _first_line(error: Exception) -> str:
    # aiohttp's sentences begin with the status, followed by the bytes that were wrong.
    text = str(error).partition(":")[2] or str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
