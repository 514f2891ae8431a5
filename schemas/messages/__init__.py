"""The messages of version 1, exchanged between device, edge and cloud.

Each class is the payload of one topic in `schemas/topics.py`. Readers ignore unknown fields, and a field that
is added later has a default, so that old and new components understand each other (guarantee G7).

A Python name may differ from the name on the wire: `field(name=...)` states the wire name.
"""

from schemas.messages.base import VERSION, Message
from schemas.messages.orders import MAX_FORGET_IDS, Command, Forget, Policy, Release, Steering
from schemas.messages.photos import Feedback, Photo, Receipt, Result, Sample
from schemas.messages.status import CanaryReport, Event, ServedModel, Status, VersionStats

__all__ = [
    "MAX_FORGET_IDS",
    "VERSION",
    "CanaryReport",
    "Command",
    "Event",
    "Feedback",
    "Forget",
    "Message",
    "Photo",
    "Policy",
    "Receipt",
    "Release",
    "Result",
    "Sample",
    "ServedModel",
    "Status",
    "Steering",
    "VersionStats",
]
