"""The device agent: camera → photo → outbox → broker, and the results back.

A photo accepted into the outbox ends in exactly one recorded result, also after crashes (guarantee G1).
"""

import asyncio
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from bus.newest import put_newest
from bus.observability.tracing import Tracer
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.sqlite import StorageError
from device import result_log
from device.cameras.base import Camera, CameraError, CameraExhausted, Frame, motion
from device.config import DeviceConfig
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Command, Photo, Result
from schemas.topics import COMMAND, PHOTO, RESULT

log = structlog.get_logger()

_ORIGINS_KEPT = 4096
"""Photos whose origin is kept in memory; results of older ones are reported without it."""

_CAMERA_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """A result, with what this device knows about the photo.

    Args:
        result: As published by the edge.
        source: Source of the frame; empty if it was taken before this run.
        truth: The true class, if the camera knows it.
        round_trip_ms: From the capture to this result; None if it was taken before this run.
    """

    result: Result
    source: str = ""
    truth: str | None = None
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Origin:
    source: str
    truth: str | None
    captured_at: float


class Agent:
    """Take photos, publish them, and record their results.

    Args:
        config: Triggers and limits.
        bus: Connected by its own `run`.
        camera: Already open.
        outbox: Loaded; its database also has the tables of `device.result_log`.
        on_result: Called with each result, including deferred ones.
        tracer: Begins spans; None if traces are off.
    """

    def __init__(
        self,
        config: DeviceConfig,
        bus: Bus,
        camera: Camera,
        *,
        outbox: Outbox,
        on_result: Callable[[PhotoResult], None],
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._bus = bus
        self._camera = camera
        self._outbox = outbox
        self._on_result = on_result
        self._tracer = tracer
        self._interval_s = config.interval_s
        self._wake = asyncio.Event()
        self._capture_requested = False
        self._origins: OrderedDict[str, _Origin] = OrderedDict()
        self._sequence = 0
        node, device = config.node, config.name
        self._topic = PHOTO.name(node=node, device=device)
        self._results: Subscription[Result] = bus.subscribe(RESULT, node=node, device=device)
        self._commands: Subscription[Command] = bus.subscribe(COMMAND, node=node, device=device)

    async def run(self) -> None:
        """Take photos until the camera has no more or the count is reached, then wait for all results.

        Safe to cancel: photos in the outbox are sent by the next run.

        Raises:
            CameraError: The camera does not work.
        """
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._receive_results(), name="device.results"),
                tasks.create_task(self._receive_commands(), name="device.commands"),
                tasks.create_task(self._outbox.run(self._bus.publish_bytes, self._bus.connected)),
            ]
            await self._take_photos()
            await self._outbox.wait_until_empty()
            for task in background:
                task.cancel()

    async def _take_photos(self) -> None:
        previous: Frame | None = None
        started_at = photo_at = -math.inf  # the first photo is due at once
        while self._config.count is None or self._sequence < self._config.count:
            await self._wait_for_trigger(started_at)
            started_at = asyncio.get_running_loop().time()
            # Cleared before the capture: a command that arrives while the camera works asks for a new photo.
            requested, self._capture_requested = self._capture_requested, False
            try:
                frame = await self._capture(first=previous is None)
            except CameraExhausted:
                return
            if requested or previous is None or await self._is_due(previous, frame, started_at - photo_at):
                await self._enqueue(frame)
                # The last photo, not the last frame: a slow movement adds up until it reaches the threshold.
                previous, photo_at = frame, started_at

    async def _wait_for_trigger(self, last: float) -> None:
        """Wait until the next frame is due, or a command asks for one."""
        if not self._camera.live:
            # A replay is never too late, so it waits for the outbox instead of filling it.
            await self._outbox.wait_for_room()
        while not self._capture_requested:
            self._wake.clear()
            # Read in each round: the command that woke this loop may have changed the interval.
            pause_s = self._config.motion_every_s if self._config.motion else self._interval_s
            try:
                async with asyncio.timeout_at(last + pause_s if pause_s else None):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _capture(self, *, first: bool) -> Frame:
        """Take a frame; retry a camera that has worked before until it works again."""
        while True:
            try:
                frame = await self._camera.capture()
            except CameraExhausted:
                raise
            except CameraError as error:
                if first:  # a wrong setting rather than a fault: no retry would mend it
                    raise
                self._bus.counters.add("camera.failed")
                await self._bus.report_degraded("camera", str(error))
                await asyncio.sleep(_CAMERA_RETRY_S)
            else:
                await self._bus.report_recovered("camera")
                return frame

    async def _is_due(self, previous: Frame, frame: Frame, elapsed_s: float) -> bool:
        """Return True if a frame is to be sent, that many seconds after the last photo."""
        config = self._config
        if not config.motion or elapsed_s >= (config.heartbeat_s or math.inf):
            return True
        if elapsed_s < config.motion_pause_s:  # no need to compare: motion is found when the pause is over
            return False
        return await asyncio.to_thread(motion, previous.image, frame.image) >= config.motion

    async def _enqueue(self, frame: Frame) -> None:
        """Put a photo into the outbox; count and report one that the outbox cannot take."""
        self._sequence += 1
        taken_at_ms = now_ms() if frame.taken_at_ms is None else frame.taken_at_ms
        expires_s = self._config.expires_s
        creating = None if self._tracer is None else self._tracer.begin("create", PHOTO)
        photo = Photo(
            photo_id=secrets.token_hex(16),
            node=self._config.node,
            device=self._config.name,
            image=frame.image,
            taken_at_ms=taken_at_ms,
            sequence=self._sequence,
            expires_at_ms=None if expires_s is None else taken_at_ms + round(expires_s * 1000),
            crop=frame.crop,
            trace=None if creating is None else creating.traceparent,
        )
        refused: Exception | None = None
        # Before put(): the outbox may send the photo, and its result arrive, before put() returns.
        self._remember(photo.photo_id, frame)
        try:
            await self._outbox.put(photo.photo_id, self._topic, _payload(photo))
        except (OutboxFullError, StorageError, PermanentError) as error:
            refused = error
            self._origins.pop(photo.photo_id, None)
            self._bus.counters.add("photo.refused")
            log.error("photo.refused", photo_id=photo.photo_id, source=frame.source, error=str(error))  # noqa: TRY400  # the sentence is enough
            await self._bus.report_degraded("outbox", str(error))
        else:
            await self._bus.report_recovered("outbox")
        if creating is not None:
            creating.end(refused, photo_id=photo.photo_id, node=photo.node, device=photo.device)

    def _remember(self, photo_id: str, frame: Frame) -> None:
        origin = _Origin(frame.source, frame.label, time.monotonic())
        put_newest(self._origins, photo_id, origin, _ORIGINS_KEPT)

    async def _receive_results(self) -> None:
        async for delivery in self._results:
            try:
                result = delivery.message()
            except CodecError as error:
                self._bus.counters.add("result.malformed")
                log.warning("result.malformed", error=str(error))
                delivery.ack()  # or the broker would deliver it again on every connection
                continue
            if result.status == "deferred":
                self._outbox.defer(result.photo_id, result.retry_after_s)
                self._on_result(self._with_origin(result))
            elif await self._record(result):
                self._on_result(self._with_origin(result))
                self._origins.pop(result.photo_id, None)
            # Last: the PUBACK may be sent only after the result is on disk (guarantee G1).
            delivery.ack()

    async def _record(self, result: Result) -> bool:
        """Record a final result; return False if it is a duplicate or cannot be written."""
        settling = None
        if self._tracer is not None and result.trace is not None:
            settling = self._tracer.begin("settle", PHOTO, trace=result.trace)
        failed: StorageError | None = None
        try:
            is_new = await self._outbox.mark_answered(
                result.photo_id,
                lambda connection: result_log.record(connection, result, keep=self._config.answers_kept),
            )
        except StorageError as error:
            # The photo stays in the outbox and is sent again, so the edge publishes its result again.
            log.warning("result.record_failed", photo_id=result.photo_id, error=str(error))
            is_new, failed = False, error
        if settling is not None:
            settling.end(failed, photo_id=result.photo_id, device=result.device, status=result.status)
        return is_new

    def _with_origin(self, result: Result) -> PhotoResult:
        if (origin := self._origins.get(result.photo_id)) is None:
            return PhotoResult(result)
        round_trip_ms = round((time.monotonic() - origin.captured_at) * 1000, 2)
        return PhotoResult(result, origin.source, origin.truth, round_trip_ms)

    async def _receive_commands(self) -> None:
        async for delivery in self._commands:
            # Acknowledged first: a redelivered `capture` would take a second photo.
            delivery.ack()
            try:
                self._apply(delivery.message())
            except PermanentError as error:
                self._bus.counters.add("command.malformed")
                log.warning("command.malformed", error=str(error))

    def _apply(self, command: Command) -> None:
        if command.action == "set-interval":
            if command.interval_s is None:
                raise PermanentError("command 'set-interval' has no interval_s")
            self._interval_s = command.interval_s
        self._capture_requested = self._capture_requested or command.action == "capture"
        self._wake.set()
        log.info("command.applied", action=command.action, interval_s=command.interval_s)


def _payload(photo: Photo) -> bytes:
    """Return an encoded photo.

    Raises:
        PermanentError: It is larger than the broker accepts; mosquitto would drop it without an error.
    """
    payload = encode(PHOTO, photo)
    if len(payload) > MAX_PAYLOAD_BYTES:
        limit = f"at most {MAX_PAYLOAD_BYTES} bytes"
        raise PermanentError("size of the photo", expected=limit, got=len(payload))
    return payload
