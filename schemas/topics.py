"""The topics of version 1, as values: pattern, message type, encoding and delivery.

The message type comes first in a topic, so that `gleaner/v1/result/#` selects all results, and no wildcard
has to match both binary and text messages.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Generic, Literal, TypeVar, get_args

from schemas.errors import TopicError
from schemas.messages import (
    Command,
    Event,
    Feedback,
    Forget,
    Message,
    Photo,
    Policy,
    Receipt,
    Release,
    Result,
    Sample,
    Status,
    Steering,
)

# The first level is also a Kubernetes namespace: KubeEdge's Router prefixes topics with it.
ROOT = "gleaner/v1"
# A DNS label is also valid as a Kubernetes node name, in a certificate's name, a URL and a file name.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Components share the status and event topics with devices, so a device must not have one of these names.
RESERVED_NAMES = ("edge", "model-server", "collector", "trainer", "rollout", "gateway", "console", "notify")
# Nor one that would give it the certificate name of something else.
_NOT_FOR_DEVICES = (*RESERVED_NAMES, "operator", "broker", "bridge", "eventbus", "homeassistant")
Handler = Literal["edge", "edge-2", "edge-3", "edge-4"]
HANDLERS: tuple[Handler, ...] = get_args(Handler)
"""Names of the edge handlers of a node; most nodes have only the first."""
CLOUD = "cloud"
"""The node name of everything that runs in the cloud."""
_QUOTED_CHARS = 80
_SHARE_LEVELS = 3
_MAX_FILTER_BYTES = 65_535
_MAX_LEVELS = 200  # of mosquitto
_NO_CHARACTERS = range(0xFDD0, 0xFDF0)
_LAST_TWO = 0xFFFE  # and 0xFFFF, of each plane: no characters either

# Covariant, so that a Topic[Photo] is a Topic[Message].
M_co = TypeVar("M_co", bound=Message, covariant=True)


def check_name(value: str, *, what: str = "name") -> str:
    """Return the value if it is a DNS label, as every name in a topic must be.

    Args:
        value: Any text.
        what: What the value names, for the error.

    Raises:
        TopicError: It is not a DNS label.
    """
    if NAME.fullmatch(value) is None:
        raise TopicError(
            what,
            expected="a DNS label (1 to 63 of a-z, 0-9 and inner hyphens)",
            got=repr(value[:_QUOTED_CHARS]),
        )
    return value


def check_device_name(value: str) -> str:
    """Return the value if a device may have this name.

    Raises:
        TopicError: It is not a DNS label, or it is the name of a component, such as `edge` or `collector-2`.
    """
    if _unnumbered(check_name(value)) in _NOT_FOR_DEVICES:
        raise TopicError(
            f"a device cannot be called {value!r}: the name is reserved", hint="choose another name"
        )
    return value


def check_node_name(value: str) -> str:
    """Return the value if an edge node may have this name; raises TopicError like `check_device_name`."""
    if check_name(value) == CLOUD:
        raise TopicError(
            f"a node cannot be called {value!r}: the name is reserved", hint="choose another name"
        )
    return value


def check_component_name(value: str, kind: str) -> str:
    """Return the value if a component in the cloud may have this name.

    Args:
        value: Any text.
        kind: What it is, such as `collector`; `collector-2` is another one of it.

    Raises:
        TopicError: It is not a DNS label, or it is the name of another kind of component.
    """
    if is_reserved(check_name(value)) and _unnumbered(value) != kind:
        raise TopicError(
            f"a {kind} cannot be called {value!r}: the name is reserved", hint=f"use {kind} or {kind}-2"
        )
    return value


def check_filter(text: str) -> str:
    """Return an MQTT topic filter if a broker takes it.

    Checked before it is sent: a broker refuses others silently, or ends the connection each time.

    Source: MQTT 5.0, sections 1.5.4, 4.7 and 4.8.2; mosquitto closes on control characters too.

    Raises:
        TopicError: A wildcard is misplaced, it is empty or too long, or has characters that MQTT excludes.
    """
    levels = text.split("/")
    for at, level in enumerate(levels):
        if (set(level) & {"#", "+"} and len(level) > 1) or (level == "#" and at < len(levels) - 1):
            raise TopicError(
                f"level {level[:_QUOTED_CHARS]!r} of the topic filter has a misplaced wildcard",
                hint="+ stands for a whole level, # for all remaining levels at the end",
            )
    if levels[0] == "$share" and not (len(levels) > _SHARE_LEVELS - 1 and all(levels[1:_SHARE_LEVELS])):
        raise TopicError("topic filter", expected="$share/GROUP/FILTER", got=repr(text[:_QUOTED_CHARS]))
    if any(_is_excluded(character) for character in text):
        raise TopicError(
            f"topic filter {text[:_QUOTED_CHARS]!a} has a character that MQTT does not allow",
            hint="use no control characters, and UTF-8",
        )
    size = len(text.encode())
    if not 0 < size <= _MAX_FILTER_BYTES or len(levels) > _MAX_LEVELS:
        expected = f"1 to {_MAX_FILTER_BYTES} bytes and at most {_MAX_LEVELS} levels"
        raise TopicError("topic filter", expected=expected, got=f"{size} bytes, {len(levels)} levels")
    return text


def _is_excluded(character: str) -> bool:
    """Return True for a control character, a surrogate, or a code point that is not a character."""
    is_none = ord(character) in _NO_CHARACTERS or ord(character) & _LAST_TWO == _LAST_TWO
    return is_none or unicodedata.category(character) in {"Cc", "Cs"}


def is_reserved(name: str) -> bool:
    """Return True for the name of a component, such as `edge` or `collector-2`: no device may have it."""
    return _unnumbered(name) in RESERVED_NAMES


def _unnumbered(name: str) -> str:
    return re.sub(r"-[0-9]+$", "", name)


@dataclass(frozen=True, slots=True)
class Topic(Generic[M_co]):
    """One kind of topic.

    Args:
        pattern: The topic with placeholders in braces, for example `gleaner/v1/photo/{node}/{device}`.
        message: Type of its messages.
        flow: Sender and receiver, for the generated documents.
        body: Encoding of written messages; a reader accepts both.
        retain: Whether messages are published with the MQTT retain flag.
        bare_image: Whether a bare JPEG or PNG is accepted as a message.
    """

    pattern: str
    message: type[M_co]
    flow: str
    body: Literal["msgpack", "json"] = "json"
    retain: bool = False
    bare_image: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Placeholders of the pattern in order, for example `("node", "device")`."""
        return _names(self.pattern)

    @property
    def kind(self) -> str:
        """The level of the topic that names the message type, for example `photo`."""
        return self.pattern.removeprefix(f"{ROOT}/").partition("/")[0]

    @property
    def filter(self) -> str:
        """The MQTT filter for all topics of this kind, for example `gleaner/v1/photo/+/+`."""
        return self.select()

    def select(self, **names: str) -> str:
        """Return the MQTT filter with some names filled in; a name left out becomes `+`.

        Raises:
            TopicError: A value is not a DNS label, or a name is not in the pattern.
        """
        if unknown := set(names) - set(self.names):
            raise TopicError(f"topic {self.pattern} has no name {', '.join(sorted(unknown))}")
        values = {name: check_name(names[name], what=name) if name in names else "+" for name in self.names}
        return self.pattern.format(**values)

    def name(self, **names: str) -> str:
        """Return the topic with all names filled in.

        Raises:
            TopicError: A value is not a DNS label, or a name is missing or unknown.
        """
        if missing := set(self.names) - set(names):
            raise TopicError(f"topic {self.pattern} needs a value for {', '.join(sorted(missing))}")
        return self.select(**names)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the names in a topic; None if it does not match or a name is not a DNS label."""
        levels, parts = topic.split("/"), self.pattern.split("/")
        if len(levels) != len(parts):
            return None
        names: dict[str, str] = {}
        for level, part in zip(levels, parts, strict=True):
            if part.startswith("{"):
                if NAME.fullmatch(level) is None:
                    return None
                names[part[1:-1]] = level
            elif level != part:
                return None
        return names


@cache
def _names(pattern: str) -> tuple[str, ...]:
    return tuple(part[1:-1] for part in pattern.split("/") if part.startswith("{"))


PHOTO = Topic(f"{ROOT}/photo/{{node}}/{{device}}", Photo, "device → edge", body="msgpack", bare_image=True)
RESULT = Topic(f"{ROOT}/result/{{node}}/{{device}}", Result, "edge → device")
SAMPLE = Topic(f"{ROOT}/sample/{{node}}", Sample, "edge → cloud", body="msgpack")
RECEIPT = Topic(f"{ROOT}/receipt/{{node}}", Receipt, "cloud → edge")
FEEDBACK = Topic(f"{ROOT}/feedback/{{node}}/{{device}}", Feedback, "person or device → cloud")
COMMAND = Topic(f"{ROOT}/command/{{node}}/{{device}}", Command, "operator or Home Assistant → device")
POLICY = Topic(f"{ROOT}/policy/{{node}}", Policy, "cloud → edge", retain=True)
RELEASE = Topic(f"{ROOT}/release/{{node}}", Release, "cloud → edge", retain=True)
FORGET = Topic(f"{ROOT}/forget/{{node}}", Forget, "cloud → edge", retain=True)
STATUS = Topic(f"{ROOT}/status/{{node}}/{{name}}", Status, "each → all", retain=True)
EVENT = Topic(f"{ROOT}/event/{{node}}/{{name}}", Event, "each → all")
STEERING = Topic(f"{ROOT}/steering/{{node}}/{{name}}", Steering, "operator → rollout", retain=True)

TOPICS: tuple[Topic[Message], ...] = (
    PHOTO,
    RESULT,
    SAMPLE,
    RECEIPT,
    FEEDBACK,
    COMMAND,
    POLICY,
    RELEASE,
    FORGET,
    STATUS,
    EVENT,
    STEERING,
)


def find(topic: str) -> tuple[Topic[Message], dict[str, str]] | None:
    """Return the Topic that a topic name matches, with the names in it, or None."""
    for candidate in TOPICS:
        if (names := candidate.match(topic)) is not None:
            return candidate, names
    return None
