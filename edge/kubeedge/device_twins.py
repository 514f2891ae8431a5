"""Keep KubeEdge's device twins up to date from the device statuses of this node.

KubeEdge ignores devices without a Device resource. Twins are for display only; nothing here reads them.
"""

import contextlib
import math
import re
import time
from typing import NamedTuple

import msgspec

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from bus.mqtt.presence import now_ms
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import ROOT, STATUS, is_reserved

NAMESPACE = ROOT.partition("/")[0]
_REPEAT_S = 300.0
_MAX_DEVICES = 1024
_STATES = {"online": "online", "degraded": "unhealthy", "offline": "offline"}
# KubeEdge drops an update whose value has other characters (edge/pkg/devicetwin, 1.23).
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9\-_.,:/@#]")


class Twin(NamedTuple):
    """Device state and twin properties as KubeEdge expects them, for the device model `camera`."""

    state: str
    properties: dict[str, str]


def twin(status: Status, model_version: int | None) -> Twin:
    """Return the twin of a device.

    Args:
        status: Of the device.
        model_version: That its edge serves, None if unknown.
    """
    properties = {"software": _FORBIDDEN.sub("_", status.software) or "_"}
    if model_version is not None:
        properties["model-version"] = str(model_version)
    return Twin(_STATES[status.state], properties)


def messages(node: str, device: str, current: Twin) -> dict[str, bytes]:
    """Return the messages that update a twin, by topic."""
    prefix = f"$hw/events/device/{NAMESPACE}/{node}.{device}"
    envelope = {"event_id": "", "timestamp": now_ms()}
    properties = {
        name: {"actual": {"value": value}, "metadata": {"type": "string"}}
        for name, value in current.properties.items()
    }
    return {
        f"{prefix}/state/update": msgspec.json.encode(envelope | {"state": current.state}),
        f"{prefix}/twin/update": msgspec.json.encode(envelope | {"twin": properties}),
    }


class TwinPublisher:
    """Publish twin updates for the devices of one node.

    A change is published twice, with the next two statuses, and an unchanged twin every 300 seconds. Bounded:
    beyond 1024 devices, each status of a further one is published.

    Args:
        bus: Where the statuses arrive; create this before its `run`.
        node: This edge.
    """

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus = bus
        self._node = node
        self._statuses = bus.subscribe(STATUS, node=node)
        self._published: dict[str, tuple[Twin, float]] = {}
        self._model_version: int | None = None

    async def run(self) -> None:
        """Follow the statuses until cancelled. Safe to cancel."""
        async for delivery in self._statuses:
            delivery.ack()
            await self._bus.connected()  # retained statuses arrive before the connection can publish
            with contextlib.suppress(CodecError, *UNPUBLISHED):  # the next status repeats it
                await self._follow(delivery.message())

    async def _follow(self, status: Status) -> None:
        if status.name == "edge":
            self._model_version = status.model.version if status.model else None
        if is_reserved(status.name):
            return
        current, now = twin(status, self._model_version), time.monotonic()
        before, at = self._published.get(status.name, (None, now))
        if current == before and now - at < _REPEAT_S:
            return
        for topic, payload in messages(self._node, status.name, current).items():
            await self._bus.publish_bytes(topic, payload)
        if status.name in self._published or len(self._published) < _MAX_DEVICES:
            # -inf makes the next status repeat a change: KubeEdge 1.23 creates a property from the first
            # value it gets and leaves it empty.
            self._published[status.name] = current, now if current == before else -math.inf
