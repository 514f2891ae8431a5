"""The device agent: camera → photo → outbox → broker, and the results back.

A photo accepted into the outbox ends in exactly one recorded answer (guarantee G1), whatever breaks between.
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
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.sqlite import Database, StorageError
from device import result_log
from device.cameras.base import Camera, CameraError, CameraExhausted, Frame, motion
from device.config import DeviceConfig
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Command, Photo, Result
from schemas.topics import COMMAND, PHOTO, RESULT

log = structlog.get_logger()

_REMEMBERED_PHOTOS = 4096
_CAMERA_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A result as the device knows it.

    Args:
        result: What the edge says.
        source: Where the camera had the photo from; empty if taken before this run.
        truth: Its label, if the camera knows it.
        round_trip_ms: From the camera to this answer; None if taken before this run.
    """

    result: Result
    source: str = ""
    truth: str | None = None
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    source: str
    truth: str | None
    at: float


class Agent:
    """Takes photos and follows them to their answers.

    Args:
        config: Triggers and bounds.
        bus: Connected by its own `run`.
        camera: Opened.
        database: With the tables of `device.result_log` and of the outbox.
        outbox: Loaded.
        show: Called with each result, deferred ones too.
    """

    def __init__(
        self,
        config: DeviceConfig,
        bus: Bus,
        camera: Camera,
        *,
        database: Database,
        outbox: Outbox,
        show: Callable[[Answer], None],
    ) -> None:
        self._config = config
        self._bus = bus
        self._camera = camera
        self._database = database
        self._outbox = outbox
        self._show = show
        self._interval_s = config.interval_s
        self._woken = asyncio.Event()
        self._wanted = False
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        self._sequence = 0
        node, device = config.node, config.name
        self._topic = PHOTO.name(node=node, device=device)
        self._results: Subscription[Result] = bus.subscribe(RESULT, node=node, device=device)
        self._commands: Subscription[Command] = bus.subscribe(COMMAND, node=node, device=device)

    async def run(self) -> None:
        """Take photos until the camera has no more or the count is reached, then wait for all answers.

        Safe to cancel: what is in the outbox is sent by the next run.

        Raises:
            CameraError: The camera does not work.
        """
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._take_results(), name="device.results"),
                tasks.create_task(self._follow_commands(), name="device.commands"),
                tasks.create_task(self._outbox.run(self._bus.publish_bytes, self._bus.connected)),
            ]
            await self._take_photos()
            await self._outbox.wait_until_empty()
            for task in background:
                task.cancel()

    async def _take_photos(self) -> None:
        previous: Frame | None = None
        began = -math.inf  # the first is due at once
        while self._config.count is None or self._sequence < self._config.count:
            await self._trigger(began)
            began = asyncio.get_running_loop().time()
            wanted, self._wanted = self._wanted, False
            try:
                frame = await self._capture(first=previous is None)
            except CameraExhausted:
                return
            if wanted or previous is None or await self._has_moved(previous, frame):
                await self._keep(frame)
                previous = frame

    async def _trigger(self, last: float) -> None:
        """Wait until it is time to look again; a camera that replays also waits for room in the window."""
        if not self._camera.live:
            await self._outbox.wait_for_room()
        while not self._wanted:
            self._woken.clear()
            pause_s = self._config.motion_every_s if self._config.motion else self._interval_s
            try:
                async with asyncio.timeout_at(last + pause_s if pause_s else None):
                    await self._woken.wait()
            except TimeoutError:
                return

    async def _capture(self, *, first: bool) -> Frame:
        """Take a frame; a camera that worked before and fails is tried again until it works."""
        while True:
            try:
                frame = await self._camera.capture()
            except CameraExhausted:
                raise
            except CameraError as error:
                if first:
                    raise
                self._bus.counters.add("camera.failed")
                await self._bus.report_degraded("camera", str(error))
                await asyncio.sleep(_CAMERA_RETRY_S)
            else:
                await self._bus.report_recovered("camera")
                return frame

    async def _has_moved(self, previous: Frame, frame: Frame) -> bool:
        """Tell whether a frame shows enough motion to become a photo; without a threshold each does."""
        threshold = self._config.motion
        return not threshold or await asyncio.to_thread(motion, previous.image, frame.image) >= threshold

    async def _keep(self, frame: Frame) -> None:
        """Put a photo into the outbox; if it cannot take it, say so loudly."""
        self._sequence += 1
        now = now_ms()
        expires_s = self._config.expires_s
        photo = Photo(
            photo_id=secrets.token_hex(16),
            node=self._config.node,
            device=self._config.name,
            image=frame.image,
            taken_at_ms=now,
            sequence=self._sequence,
            expires_at_ms=None if expires_s is None else now + round(expires_s * 1000),
        )
        self._remember(photo.photo_id, frame)
        try:
            await self._outbox.put(photo.photo_id, self._topic, _payload(photo))
        except (OutboxFullError, StorageError, PermanentError) as error:
            self._taken.pop(photo.photo_id, None)
            self._bus.counters.add("photo.refused")
            log.error("photo.refused", photo_id=photo.photo_id, source=frame.source, error=str(error))  # noqa: TRY400  # the sentence says it all
            await self._bus.report_degraded("outbox", str(error))
        else:
            await self._bus.report_recovered("outbox")

    def _remember(self, photo_id: str, frame: Frame) -> None:
        self._taken[photo_id] = _Taken(frame.source, frame.label, time.monotonic())
        if len(self._taken) > _REMEMBERED_PHOTOS:
            self._taken.popitem(last=False)

    async def _take_results(self) -> None:
        async for delivery in self._results:
            try:
                result = delivery.message()
            except CodecError as error:
                self._bus.counters.add("result.malformed")
                log.warning("result.malformed", error=str(error))
                delivery.ack()
                continue
            if result.status == "deferred":
                self._outbox.defer(result.photo_id)
                self._show(self._answer(result))
            elif await self._settle(result):
                self._show(self._answer(result))
                self._taken.pop(result.photo_id, None)
            delivery.ack()

    async def _settle(self, result: Result) -> bool:
        """Record a final result; False if it was recorded before or the disk refuses."""
        try:
            return await self._outbox.mark_answered(
                result.photo_id,
                lambda connection: result_log.record(connection, result, kept=self._config.answers_kept),
            )
        except StorageError as error:  # the photo stays in the outbox, and its answer comes again
            log.warning("result.unsettled", photo_id=result.photo_id, error=str(error))
            return False

    def _answer(self, result: Result) -> Answer:
        if (taken := self._taken.get(result.photo_id)) is None:
            return Answer(result)
        round_trip_ms = round((time.monotonic() - taken.at) * 1000, 2)
        return Answer(result, taken.source, taken.truth, round_trip_ms)

    async def _follow_commands(self) -> None:
        async for delivery in self._commands:
            delivery.ack()
            try:
                self._follow(delivery.message())
            except PermanentError as error:
                self._bus.counters.add("command.malformed")
                log.warning("command.malformed", error=str(error))

    def _follow(self, command: Command) -> None:
        if command.action == "set-interval":
            if command.interval_s is None:
                raise PermanentError("command set-interval", expected="interval_s", got="none")
            self._interval_s = command.interval_s
        self._wanted = self._wanted or command.action == "capture"
        self._woken.set()
        log.info("command.followed", action=command.action, interval_s=command.interval_s)


def _payload(photo: Photo) -> bytes:
    """Return an encoded photo.

    Raises:
        PermanentError: A broker would drop it for its size, without a word.
    """
    payload = encode(PHOTO, photo)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PermanentError("photo", expected=f"at most {MAX_PAYLOAD_BYTES} bytes", got=len(payload))
    return payload
