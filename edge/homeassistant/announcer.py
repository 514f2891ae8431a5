"""Keep Home Assistant informed: devices that appear and go, their answers, and the model's version."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.errors import BrokerConnectionError, MessageTooLargeError, PublishRefusedError
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import RawMessage
from edge.config import EdgeConfig
from edge.homeassistant import discovery
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.messages import Photo, Result
from schemas.topics import RELEASE, STATUS, is_reserved

log = structlog.get_logger()

MAX_DEVICES = 256
"""Most devices that are announced; further ones are counted as `homeassistant.device_ignored`."""
_FORGET_S = 30 * 86_400.0
_GRACE_S = 86_400.0
_CHECK_S = 3600.0
_PASS_S = 0.2
_RETRY_S = 1.0


class Seen(NamedTuple):
    """When a device was seen last.

    Args:
        at_s: By this run, seconds of the monotonic clock; its start for a device of an earlier run.
        earlier_ms: By an earlier run, UTC milliseconds since 1970; None if this run has seen it.
    """

    at_s: float
    earlier_ms: int | None = None


def is_forgotten(seen: Seen, now_s: float, now_ms: int) -> bool:
    """Return True for a device that was silent for 30 days.

    Setting the clock changes nothing: it only counts for a device of an earlier run, after a day of this run.
    """
    silent_s = now_s - seen.at_s
    if seen.earlier_ms is None or silent_s < _GRACE_S:
        return silent_s > _FORGET_S
    return max(silent_s, (now_ms - seen.earlier_ms) / 1000) > _FORGET_S


class Announcer:
    """Announces the devices of a node to Home Assistant.

    Bounded: what waits to be published is the newest payload of each topic, seven topics for each of at most
    `MAX_DEVICES` devices. So pictures that come faster than they are published are skipped.

    Args:
        config: Names of node and handler, and the form of discovery.
        bus: Not running yet.
    """

    def __init__(self, config: EdgeConfig, bus: Bus) -> None:
        self._node, self._handler, self._model = config.node, config.name, config.model
        self._form = config.homeassistant_discovery
        self._bus = bus
        self._statuses = bus.subscribe_raw(STATUS.select(node=config.node), optional=True)
        self._releases = bus.subscribe_raw(RELEASE.name(node=config.node), optional=True)
        self._births = bus.subscribe_raw(discovery.BIRTH_TOPIC, optional=True)
        # What earlier runs announced, so that it is announced again, or removed.
        self._earlier = bus.subscribe_raw(discovery.result_topic(self._node, "+"), optional=True)
        self._seen: dict[str, Seen] = {}
        self._shown: dict[str, str] = {}
        self._pending: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self._installed: int | None = None
        self._released: int | None = None

    @property
    def devices(self) -> list[str]:
        """Names of the devices that are announced."""
        return list(self._seen)

    def answered(self, photo: Photo, result: Result) -> None:
        """Show an answer and its picture; does not block."""
        if result.status != "ok" or not self._note(result.device):
            return
        self._shown[result.device] = result.photo_id
        self._put(
            {
                discovery.result_topic(self._node, result.device): discovery.answer(result),
                discovery.image_topic(self._node, result.device): photo.image,
            }
        )

    def forget(self, covers: Callable[[str, str], bool]) -> None:
        """Remove the answer and the picture that show a photo, by device and photo id; does not block."""
        for device in self._seen:
            # What an earlier run showed is not known: the next photo shows something again.
            if covers(device, self._shown.get(device, "")) or device not in self._shown:
                self._put(
                    {
                        discovery.result_topic(self._node, device): b"",
                        discovery.image_topic(self._node, device): b"",
                    }
                )

    async def run(self) -> None:
        """Announce until cancelled. Safe to cancel: announcements are retained by the broker."""
        async with asyncio.TaskGroup() as tasks:
            for name, queue, take in (
                ("statuses", self._statuses, self._take_status),
                ("releases", self._releases, self._take_release),
                ("births", self._births, self._take_birth),
                ("earlier", self._earlier, self._take_earlier),
            ):
                tasks.create_task(_each(queue, take), name=f"homeassistant.{name}")
            tasks.create_task(self._announce_on_connecting(), name="homeassistant.connect")
            tasks.create_task(self._forget_silent(), name="homeassistant.forget")
            tasks.create_task(self._publish(), name="homeassistant.publish")

    def _take_status(self, message: RawMessage) -> None:
        """Announce the device of a Status, or remove it if the Status was cleared."""
        names = STATUS.match(message.topic)
        if names is None:
            return
        if names["name"] == self._handler:
            self._take_own_status(message.payload)
        elif is_reserved(names["name"]):
            return
        elif message.payload:
            self._note(names["name"])
        elif names["name"] in self._seen:
            self._remove(names["name"])

    def _take_own_status(self, payload: bytes) -> None:
        with suppress(CodecError):
            status = decode(STATUS, payload, {"node": self._node, "name": self._handler})
            served = status.model.version if status.model is not None else None
            if served != self._installed:
                self._installed = served
                self._put_model()

    def _take_release(self, message: RawMessage) -> None:
        try:
            release = decode(RELEASE, message.payload, {"node": self._node}) if message.payload else None
        except CodecError:
            return  # the deployer reports it
        if release is None or release.model == self._model:
            self._released = None if release is None else release.version
            self._put_model()

    def _take_birth(self, message: RawMessage) -> None:
        if message.payload == discovery.BIRTH:
            log.info("homeassistant.born", devices=len(self._seen))
            self._announce_all()

    def _take_earlier(self, message: RawMessage) -> None:
        if not message.retained:  # our own, which may be of a device that was removed since
            return
        device = discovery.device_of(message.topic, self._node)
        at_ms = discovery.answered_at_ms(message.payload)
        if device is not None and at_ms is not None and device not in self._seen:
            self._note(device, at_ms)

    def _note(self, device: str, earlier_ms: int | None = None) -> bool:
        """Note that a device exists and announce a new one; return False if there are too many."""
        if device not in self._seen:
            if len(self._seen) >= MAX_DEVICES:
                self._bus.counters.add("homeassistant.device_ignored")
                return False
            self._announce(device)
        self._seen[device] = Seen(time.monotonic(), earlier_ms)
        return True

    def _announce(self, device: str) -> None:
        entities = discovery.device_entities(self._node, device)
        self._put(discovery.announcements(self._form, self._node, device, entities))

    def _announce_all(self) -> None:
        entities = discovery.node_entities(self._node, self._handler)
        self._put(discovery.announcements(self._form, self._node, None, entities))
        self._put_model()
        for device in self._seen:
            self._announce(device)

    def _remove(self, device: str) -> None:
        del self._seen[device]
        self._shown.pop(device, None)
        log.info("homeassistant.removed", device=device)
        entities = discovery.device_entities(self._node, device)
        self._put(discovery.removals(self._form, self._node, device, entities))

    async def _announce_on_connecting(self) -> None:
        """Announce everything with each connection: the broker may have lost what it retained."""
        number = 0
        while True:
            number = await self._bus.connected(after=number)
            self._announce_all()

    async def _forget_silent(self) -> None:
        """Remove devices that were not seen for 30 days."""
        while True:
            await asyncio.sleep(_CHECK_S)
            at_s, at_ms = time.monotonic(), now_ms()
            for device in [name for name, seen in self._seen.items() if is_forgotten(seen, at_s, at_ms)]:
                self._remove(device)

    def _put_model(self) -> None:
        payload = discovery.model_versions(self._model, self._installed, self._released)
        self._put({discovery.model_topic(self._node): payload})

    def _put(self, messages: dict[str, bytes]) -> None:
        for topic, payload in messages.items():
            self._pending.pop(topic, None)  # the newest goes last, so that a removal follows what it removes
            self._pending[topic] = payload
        self._wake.set()

    async def _publish(self) -> None:
        """Publish what waits, in its order, one message at a time: others' messages go in between."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                await self._bus.connected()
                topic = next(iter(self._pending))
                await self._publish_one(topic, self._pending.pop(topic))
            await asyncio.sleep(_PASS_S)  # a fast camera's pictures are skipped

    async def _publish_one(self, topic: str, payload: bytes) -> None:
        try:
            await self._bus.publish_bytes(topic, payload, retain=True)
        except (MessageTooLargeError, PublishRefusedError) as error:
            log.warning("homeassistant.refused", topic=topic, error=str(error))
        except BrokerConnectionError as error:
            log.debug("homeassistant.unpublished", topic=topic, error=str(error))
            self._pending.setdefault(topic, payload)
            await asyncio.sleep(_RETRY_S)


async def _each(queue: asyncio.Queue[RawMessage], take: Callable[[RawMessage], None]) -> None:
    """Pass on each message of a queue until cancelled."""
    while True:
        take(await queue.get())
