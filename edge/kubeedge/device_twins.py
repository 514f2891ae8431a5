"""What Kubernetes sees of the cameras: KubeEdge's device twins, kept up from the statuses of this node.

Only where a Device of that name exists does KubeEdge take any notice. A state in a twin is for people to look
at; nothing here depends on it.
"""

import contextlib
import math
import re
import time
from typing import NamedTuple

import msgspec

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import ROOT, STATUS, is_reserved

NAMESPACE = ROOT.partition("/")[0]
_AGAIN_S = 300.0
_DEVICES = 1024
_STATES = {"online": "online", "degraded": "unhealthy", "offline": "offline"}
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9\-_.,:/@#]")  # in a twin's values


class Twin(NamedTuple):
    """What is told of a device: its state in KubeEdge's words, and properties of the model `camera`."""

    state: str
    properties: dict[str, str]


def twin(status: Status, model_version: int | None) -> Twin:
    """Return what to tell of a device.

    Args:
        status: Its own.
        model_version: That its edge answers with, None if unknown.
    """
    properties = {"software": _FORBIDDEN.sub("_", status.software) or "_"}
    if model_version is not None:
        properties["model-version"] = str(model_version)
    return Twin(_STATES[status.state], properties)


def messages(node: str, device: str, told: Twin) -> dict[str, bytes]:
    """Return the messages that tell KubeEdge, by topic."""
    place = f"$hw/events/device/{NAMESPACE}/{node}.{device}"
    envelope = {"event_id": "", "timestamp": now_ms()}
    properties = {
        name: {"actual": {"value": value}, "metadata": {"type": "string"}}
        for name, value in told.properties.items()
    }
    return {
        f"{place}/state/update": msgspec.json.encode(envelope | {"state": told.state}),
        f"{place}/twin/update": msgspec.json.encode(envelope | {"twin": properties}),
    }


class TwinPublisher:
    """Tells KubeEdge of the devices of one node: each change twice, and now and then what has not changed.

    Twice, because KubeEdge 1.23 makes a property of the first value that it hears, and leaves it empty.

    Args:
        bus: Where the statuses arrive; make this before its `run`.
        node: This edge.
    """

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus = bus
        self._node = node
        self._statuses = bus.subscribe(STATUS, node=node)
        self._told: dict[str, tuple[Twin, float]] = {}
        self._model_version: int | None = None

    async def run(self) -> None:
        """Follow the statuses until cancelled."""
        async for delivery in self._statuses:
            delivery.ack()
            await self._bus.connected()  # retained statuses come before the connection counts as one
            with contextlib.suppress(CodecError, BrokerConnectionError):  # the next status tells it
                await self._follow(delivery.message())

    async def _follow(self, status: Status) -> None:
        if status.name == "edge":
            self._model_version = status.model.version if status.model else None
        if is_reserved(status.name):
            return
        current, now = twin(status, self._model_version), time.monotonic()
        before, at = self._told.get(status.name, (None, now))
        if current == before and now - at < _AGAIN_S:
            return
        for topic, payload in messages(self._node, status.name, current).items():
            await self._bus.publish_bytes(topic, payload)
        if status.name in self._told or len(self._told) < _DEVICES:
            self._told[status.name] = current, now if current == before else -math.inf
