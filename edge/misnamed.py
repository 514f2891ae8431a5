"""Answer photos on topics without a valid device name, such as `photo/edge-1/ESP32_CAM` and `photo/edge-1`.

The contract has no such device, and access control lets no client of a provisioned site use the name. The
sender gets a rejection under the name that it used, with the name that it may use instead. A label of such a
device has no answer in the contract: it is counted and reported by the Event.
"""

import asyncio
import re
import time
import unicodedata
from collections import OrderedDict
from typing import NamedTuple

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from bus.mqtt.presence import now_ms
from bus.newest import put_newest
from schemas.codec import content_id, decode, to_json
from schemas.errors import CodecError, TopicError
from schemas.events import EventName
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Event, Result
from schemas.topics import EVENT, FEEDBACK, PHOTO, RESULT, check_device_name

log = structlog.get_logger()

_MAX_QUEUED = 64
_EVENT_EVERY_S = 600.0
_MAX_NAMES = 256
_MAX_NAME_CHARS = 63
_QUOTED_CHARS = 80
_MARKS = re.compile("[\u0300-\u036f]")  # of letters such as é, once they are taken apart


class _Misnamed(NamedTuple):
    """A photo or label, with what follows the node in its topic: nothing, or a slash and a name."""

    rest: str
    payload: bytes
    is_photo: bool

    @property
    def device(self) -> str:
        return self.rest.removeprefix("/")


def valid_name(name: str) -> str:
    """Return the device name that is nearest to a name: `esp32-cam` for `ESP32_CAM`, `kuche` for `Küche`."""
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", name[: _MAX_NAME_CHARS * 2]))
    label = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_MAX_NAME_CHARS].rstrip("-")
    try:
        return check_device_name(label) if label else "device"
    except TopicError:  # reserved, such as `edge-2`
        return f"device-{label}"


class MisnamedPhotos:
    """Reject photos of misnamed devices, and report each name once in ten minutes as an Event.

    Bounded: 64 messages are queued, further ones are dropped and counted as `photo.misnamed_dropped`; 256
    names are remembered.

    Args:
        bus: Connected by its own `run`.
        node: Of this edge.
        handler: Name of this handler.
        group: That shares the photos of the node, None if this handler has all.
    """

    def __init__(self, bus: Bus, node: str, handler: str, group: str | None = None) -> None:
        self._bus = bus
        self._node = node
        self._handler = handler
        self._prefix = PHOTO.select(node=node).removesuffix("/+")
        self._labels = FEEDBACK.select(node=node).removesuffix("+")
        self._queue: asyncio.Queue[_Misnamed] = asyncio.Queue(_MAX_QUEUED)
        self._reported_at: OrderedDict[str, float] = OrderedDict()
        bus.on_unmatched = self._receive
        shared = "" if group is None else f"$share/{group}/"
        bus.stray_filters = (f"{shared}{self._prefix}", f"{shared}{self._prefix}/+/+/#")

    async def run(self) -> None:
        """Answer until cancelled. Safe to cancel: queued photos are dropped."""
        while True:
            one = await self._queue.get()
            result = self._rejection(one)
            await self._bus.connected()  # a photo can arrive before the subscriptions are confirmed
            try:
                if one.is_photo:
                    # Not `Bus.publish`, which refuses the name: the sender knows no other topic.
                    await self._bus.publish_bytes(self._result_topic(one.rest), to_json(result))
                if self._is_due(one.device):
                    await self._report(one.device, result)
            except UNPUBLISHED:
                self._bus.counters.add("photo.misnamed_dropped")

    def _receive(self, topic: str, payload: bytes) -> None:
        """Take a message that no subscription matches; must not block."""
        if topic.startswith(self._labels):
            one = _Misnamed("/" + topic.removeprefix(self._labels), payload, is_photo=False)
        elif topic == self._prefix or topic.startswith(f"{self._prefix}/"):
            one = _Misnamed(topic.removeprefix(self._prefix), payload, is_photo=True)
        else:
            return
        if one.is_photo:
            self._bus.counters.add("photo.misnamed")
        else:
            self._bus.counters.add("feedback.misnamed")
        try:
            self._queue.put_nowait(one)
        except asyncio.QueueFull:
            self._bus.counters.add("photo.misnamed_dropped")

    def _result_topic(self, rest: str) -> str:
        return RESULT.select(node=self._node).removesuffix("/+") + rest

    def _rejection(self, one: _Misnamed) -> Result:
        device = valid_name(one.device)
        try:
            photo_id = decode(PHOTO, one.payload, {"node": self._node, "device": device}).photo_id
        except CodecError as error:
            photo_id = error.photo_id or content_id(one.payload)
        reason = f"{one.device[:_QUOTED_CHARS]!r} is not a DNS label: use a name such as {device!r}"
        if not one.rest:
            reason = f"the topic {self._prefix} names no device: use {self._prefix}/NAME"
        return Result(
            photo_id=photo_id,
            node=self._node,
            device=device,
            status="rejected",
            code="malformed-message",
            reason=reason[:MAX_TEXT_CHARS],
            answered_at_ms=now_ms(),
        )

    def _is_due(self, device: str) -> bool:
        now = time.monotonic()
        if now - self._reported_at.get(device, -_EVENT_EVERY_S) < _EVENT_EVERY_S:
            return False
        put_newest(self._reported_at, device, now, _MAX_NAMES)
        return True

    async def _report(self, device: str, result: Result) -> None:
        log.warning("photo.misnamed", device=device[:_QUOTED_CHARS], use=result.device)
        event = Event(
            node=self._node,
            name=self._handler,
            event=EventName.PHOTO_MISNAMED,
            at_ms=result.answered_at_ms,
            reason=result.reason,
        )
        await self._bus.publish(EVENT, event, node=self._node, name=self._handler)
