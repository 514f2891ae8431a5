"""From the Router to the cloud's broker: samples, statuses, events and feedback of the edge nodes.

The Router POSTs each message once, in parallel and without a bound, takes any answer for success, and leaks a
connection for each answer without a body. So a message is checked, queued and answered at once; what finds
the queue full is refused with 503, and the edge's outbox sends it again.
"""

import asyncio
import time
from http import HTTPStatus
from typing import NamedTuple

import structlog
from aiohttp import web

from bus.backoff import backoff
from bus.gateway.byte_queue import BoundedQueue, QueuedMessage
from bus.gateway.config import GatewayConfig
from bus.gateway.downlink import Downlink
from bus.gateway.restart_detector import RestartDetector
from bus.gateway.routes import Route, find_route
from bus.gateway.rule_probe import report
from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from schemas.codec import decode, encode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Receipt, Status
from schemas.topics import CLOUD, EVENT, SAMPLE

log = structlog.get_logger()

_BODY_S = 10.0
_AT_ONCE = 64
_LAST_RETRY_S = 5.0
_REASON_LENGTH = 1024


class UplinkError(PermanentError):
    """The uplink cannot be offered at this address."""


class Answer(NamedTuple):
    """What the Router is told; it writes it to its log at most."""

    status: HTTPStatus
    text: str
    counted: str


class Uplink:
    """Takes what the Router POSTs to the cloud's broker, on the topic that the edge used.

    Args:
        config: Nodes and bounds.
        bus: Connected by its own `run`.
        downlink: Told which edges are back, and what they wait for in vain.
    """

    def __init__(self, config: GatewayConfig, bus: Bus, downlink: Downlink) -> None:
        self._config = config
        self._bus = bus
        self._downlink = downlink
        self._counters = bus.counters
        self._births = RestartDetector(config.silent_s)
        self._lines = {node: BoundedQueue(config.queue_bytes) for node in config.nodes}
        self._receiving = 0

    async def run(self) -> None:
        """Take messages until cancelled.

        Cancelling loses what is queued; the edges send again what is worth it.

        Raises:
            UplinkError: The address is taken, or not this machine's.
        """
        application = web.Application(client_max_size=self._config.max_body_bytes)
        application.router.add_post("/up/{node}/{kind}", self._take)
        application.router.add_post("/up/{node}/{kind}/{device}", self._take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await self._listen(runner)
            async with asyncio.TaskGroup() as tasks:
                for node, line in self._lines.items():
                    tasks.create_task(self._pass_on(line), name=f"up.{node}")
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        host, _, port = self._config.listen.rpartition(":")
        try:
            await web.TCPSite(runner, host, int(port)).start()
        except OSError as error:
            raise UplinkError(
                f"gateway {self._config.listen}", expected="an address to listen on", got=error
            ) from None
        log.info("up.listening", port=runner.addresses[0][1])

    async def _take(self, request: web.Request) -> web.Response:
        found = find_route(**request.match_info)
        answer = Answer(HTTPStatus.NOT_FOUND, "no topic that crosses", "unknown")
        if found is not None and found.node in self._lines:
            answer = await self._receive(found, request)
        kind = "none" if found is None else found.topic.kind
        self._counters.add(f"up.{kind}.{answer.counted}")
        if answer.status >= HTTPStatus.BAD_REQUEST:
            log.warning("up.refused", path=request.path[:200], reason=answer.text)
        response = web.Response(status=answer.status, text=f"{answer.text}\n")
        response.force_close()  # the Router opens a new connection for each message
        return response

    async def _receive(self, found: Route, request: web.Request) -> Answer:
        """Read a body, unless too much is being read or waits already."""
        line = self._lines[found.node]
        if self._receiving >= _AT_ONCE or not line.has_room(request.content_length or 0):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "too much at once", "full")
        self._receiving += 1
        try:
            async with asyncio.timeout(_BODY_S):
                body = await request.read()
        except (TimeoutError, ConnectionError):
            return Answer(HTTPStatus.REQUEST_TIMEOUT, f"no whole body within {_BODY_S:g} s", "cut")
        except web.HTTPRequestEntityTooLarge:
            most = f"expected at most {self._config.max_body_bytes} bytes"
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, most, "malformed")
        finally:
            self._receiving -= 1
        return self._accept(found, body, line)

    def _accept(self, found: Route, body: bytes, line: BoundedQueue) -> Answer:
        """Check a message and queue it."""
        try:
            passing = self._examine(found, body)
        except CodecError as error:
            self._refuse(found, error)
            return Answer(HTTPStatus.BAD_REQUEST, str(error), "malformed")
        if not line.put(passing):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "too much waits", "full")
        return Answer(HTTPStatus.OK, "queued", "taken")

    def _examine(self, found: Route, body: bytes) -> QueuedMessage:
        """Return what is to be published for a body; an edge that is back is told what lasts.

        Raises:
            CodecError: It is no message of its topic.
        """
        if (event := report(body, found, self._config.name)) is not None:
            return QueuedMessage(
                EVENT.name(node=CLOUD, name=self._config.name), encode(EVENT, event), retain=False
            )
        message = decode(found.topic, body, found.names)
        if isinstance(message, Status) and self._births.returned(message, time.monotonic()):
            log.info("up.returned", node=found.node, run_id=message.run_id)
            self._downlink.returned(found.node)
        return QueuedMessage(found.name, body, retain=found.topic.retain)

    def _refuse(self, found: Route, error: CodecError) -> None:
        """Answer a sample that can never be stored, as the collector would, or it would come for ever."""
        if found.topic is SAMPLE and error.photo_id is not None:
            self._downlink.answer(
                Receipt(
                    photo_id=error.photo_id,
                    node=found.node,
                    status="refused",
                    reason=str(error)[:_REASON_LENGTH],
                    received_at_ms=now_ms(),
                )
            )

    async def _pass_on(self, line: BoundedQueue) -> None:
        """Publish what waits, one after the other, each until the broker has it."""
        while True:
            message = await line.get()
            for delay_s in backoff(cap_s=_LAST_RETRY_S):
                await self._bus.connected()
                try:
                    await self._bus.publish_bytes(message.topic, message.payload, retain=message.retain)
                except BrokerConnectionError as error:
                    log.debug("up.unpublished", topic=message.topic, error=str(error))
                    await asyncio.sleep(delay_s)
                else:
                    break
