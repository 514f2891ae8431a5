"""A probe of a Rule: it goes down through the Router onto a topic that comes up, and the gateway reports it.

Anybody else who gets it sees a message that it does not understand.
"""

import re
import secrets
from typing import NamedTuple

from bus.gateway.routes import Route
from bus.mqtt.presence import now_ms
from schemas.messages import Event
from schemas.topics import CLOUD

EVENT_NAME = "rule.probed"
_FORM = re.compile(rb'\{"probe":"([0-9a-f]{32})"\}')


class Probe(NamedTuple):
    """What is sent down: a number drawn at random, and the payload that carries it."""

    number: str
    payload: bytes


def draw() -> Probe:
    """Return a new probe."""
    number = secrets.token_hex(16)
    return Probe(number, b'{"probe":"%s"}' % number.encode())


def report(body: bytes, found: Route, gateway: str) -> Event | None:
    """Return what the gateway has to say of a body; None if it is no probe."""
    match = _FORM.fullmatch(body)
    if match is None:
        return None
    facts: dict[str, str | int | float | bool] = {"probe": match[1].decode(), "topic": found.name}
    return Event(node=CLOUD, name=gateway, event=EVENT_NAME, at_ms=now_ms(), facts=facts)
