"""Probe messages that test a KubeEdge Rule.

A probe goes down through the Router onto a topic that comes up again, and the gateway reports its arrival as
an Event. Any other receiver sees a message that it cannot decode.
"""

import re
import secrets
from typing import NamedTuple

from bus.gateway.routes import Route
from bus.mqtt.presence import now_ms
from schemas.events import EventName
from schemas.messages import Event
from schemas.topics import CLOUD

_NUMBER_BYTES = 16
_PAYLOAD = re.compile(rb'\{"probe":"([0-9a-f]{32})"\}')


class Probe(NamedTuple):
    """A random number and the payload that contains it."""

    number: str
    payload: bytes


def new_probe() -> Probe:
    """Return a probe with a random number."""
    number = secrets.token_hex(_NUMBER_BYTES)
    return Probe(number, b'{"probe":"%s"}' % number.encode())


def probe_event(body: bytes, route: Route, gateway: str) -> Event | None:
    """Return the Event that reports a received probe; None if the body is not a probe."""
    match = _PAYLOAD.fullmatch(body)
    if match is None:
        return None
    facts: dict[str, str | int | float | bool] = {"probe": match[1].decode(), "topic": route.name}
    return Event(node=CLOUD, name=gateway, event=EventName.RULE_PROBED, at_ms=now_ms(), facts=facts)
