"""Cameras that publish pictures to any MQTT topic, such as an ESP32-CAM or Frigate."""

import asyncio
from types import TracebackType
from typing import Self

import structlog

from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from device.cameras.base import CameraError, Frame, looks_like_picture
from device.cameras.newest import NewestPicture
from schemas.errors import TopicError
from schemas.text import escaped, without_secrets
from schemas.topics import check_filter

log = structlog.get_logger()

_ANY_AGE_S = float("inf")
_SHOWN_CHARS = 80


class MqttCamera:
    """A camera whose pictures are the messages of a topic; each is taken once, and only the newest.

    The time of a picture is that of its arrival, also of one that the broker had retained. Other messages
    than pictures are skipped.

    Args:
        topic: Topic, or filter with wildcards.
        broker: The broker that carries it.
        password: For the broker's user name.

    Raises:
        CameraError: The filter is invalid.
    """

    live = True

    def __init__(self, topic: str, broker: Broker, password: str | None = None) -> None:
        self._topic = topic
        try:
            check_filter(topic)
        except TopicError as error:
            raise CameraError(
                f"camera {escaped(self._shown, _SHOWN_CHARS)}: {error}",
                hint="use mqtt:TOPIC, such as mqtt:cam/1/jpeg",
            ) from None
        self._bus = Bus(broker, transient_client_id("camera"), password=password)
        self._messages = self._bus.subscribe_raw(topic)
        self._newest = NewestPicture(self._shown)
        self._skipped = 0

    @property
    def _shown(self) -> str:
        """The camera's specification as it may be shown."""
        return without_secrets(f"mqtt:{self._topic}")

    async def __aenter__(self) -> Self:
        """Start to connect and to receive."""
        self._running = asyncio.create_task(self._run(), name="camera.mqtt")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._running.cancel()
        await asyncio.wait([self._running])

    async def capture(self) -> Frame:
        """Wait for a picture that arrived since the last photo, however long that takes.

        Raises:
            CameraError: The broker refuses the subscription.
        """
        return await self._newest.take(_ANY_AGE_S)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._bus.run(), name="camera.bus")
                tasks.create_task(self._receive(), name="camera.receive")
        except* Exception as errors:  # noqa: BLE001  # of any kind: `capture` would never return
            self._newest.fail(CameraError(f"camera {self._shown} failed: {errors.exceptions[0]}"))

    async def _receive(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            message = await self._messages.get()
            if looks_like_picture(message.payload):
                self._newest.put(message.payload, began_at=now(), arrived_at=now())
                continue
            self._skipped += 1
            level = log.warning if self._skipped == 1 else log.debug
            level("camera.message_skipped", topic=message.topic, bytes=len(message.payload))
