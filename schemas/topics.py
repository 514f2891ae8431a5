"""The topics of version 1: the only list of them.

A topic is a value: its place, the type of its messages, how they are encoded and delivered. Message
type comes before place, so that `gleaner/v1/result/#` is every result, and binary topics never share a
wildcard with text ones.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Generic, Literal, TypeVar, get_args

from schemas.errors import TopicError
from schemas.messages import (
    Command,
    Event,
    Feedback,
    Message,
    Photo,
    Policy,
    Receipt,
    Release,
    Result,
    Sample,
    Status,
)

ROOT = "gleaner/v1"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RESERVED_NAMES = ("edge", "model-server", "collector", "trainer", "rollout", "gateway")
Handler = Literal["edge", "edge-2", "edge-3", "edge-4"]
HANDLERS: tuple[Handler, ...] = get_args(Handler)
"""What the edge handlers of a node are called; most nodes have the first alone."""
CLOUD = "cloud"

M_co = TypeVar("M_co", bound=Message, covariant=True)


def check_name(value: str, *, what: str = "name") -> str:
    """Return the value if it may stand in a topic.

    Raises:
        TopicError: It is no DNS label.
    """
    if NAME.fullmatch(value) is None:
        raise TopicError(
            what, expected="a DNS label (1 to 63 of a-z, 0-9 and inner hyphens)", got=repr(value[:80])
        )
    return value


def is_reserved(name: str) -> bool:
    """Tell whether a name is a component's, also with a number behind, and so no device's."""
    return re.sub(r"-[0-9]+$", "", name) in RESERVED_NAMES


@dataclass(frozen=True, slots=True)
class Topic(Generic[M_co]):
    """One kind of topic.

    Args:
        pattern: The topic with its names in braces.
        message: Type of the messages on it.
        body: How this side writes; a reader accepts both.
        retain: Whether the broker keeps the last message for those who come later.
        flow: From whom to whom, for the documents.
        bare_image: Whether a JPEG or PNG without an envelope is a message too.
    """

    pattern: str
    message: type[M_co]
    flow: str
    body: Literal["msgpack", "json"] = "json"
    retain: bool = False
    bare_image: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the pattern, in order: for example `("node", "device")`."""
        return _names(self.pattern)

    @property
    def kind(self) -> str:
        """The level that tells the message type: for example `photo`."""
        return self.pattern.removeprefix(f"{ROOT}/").partition("/")[0]

    @property
    def filter(self) -> str:
        """The subscription for all of them: `gleaner/v1/photo/+/+`."""
        return self.select()

    def select(self, **names: str) -> str:
        """Return the subscription for some of them; a name left out becomes `+`.

        Raises:
            TopicError: A value is no DNS label, or the topic has no such name.
        """
        if unknown := set(names) - set(self.names):
            raise TopicError(f"topic {self.pattern}", expected=f"names {self.names}", got=sorted(unknown))
        values = {name: check_name(names[name], what=name) if name in names else "+" for name in self.names}
        return self.pattern.format(**values)

    def name(self, **names: str) -> str:
        """Return the topic of one place.

        Raises:
            TopicError: A value is no DNS label, or a name is missing or unknown.
        """
        if missing := set(self.names) - set(names):
            raise TopicError(f"topic {self.pattern}", expected=f"names {self.names}", got=f"no {missing}")
        return self.select(**names)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the names in a topic, or None if it is not one of these or a name is no DNS label."""
        levels, parts = topic.split("/"), self.pattern.split("/")
        if len(levels) != len(parts):
            return None
        found: dict[str, str] = {}
        for level, part in zip(levels, parts, strict=True):
            if part.startswith("{"):
                if NAME.fullmatch(level) is None:
                    return None
                found[part[1:-1]] = level
            elif level != part:
                return None
        return found


@cache
def _names(pattern: str) -> tuple[str, ...]:
    return tuple(part[1:-1] for part in pattern.split("/") if part.startswith("{"))


PHOTO = Topic(f"{ROOT}/photo/{{node}}/{{device}}", Photo, "device → edge", body="msgpack", bare_image=True)
RESULT = Topic(f"{ROOT}/result/{{node}}/{{device}}", Result, "edge → device")
SAMPLE = Topic(f"{ROOT}/sample/{{node}}", Sample, "edge → cloud", body="msgpack")
RECEIPT = Topic(f"{ROOT}/receipt/{{node}}", Receipt, "cloud → edge")
FEEDBACK = Topic(f"{ROOT}/feedback/{{node}}/{{device}}", Feedback, "person or device → cloud")
COMMAND = Topic(f"{ROOT}/command/{{node}}/{{device}}", Command, "anyone → device")
POLICY = Topic(f"{ROOT}/policy/{{node}}", Policy, "cloud → edge", retain=True)
RELEASE = Topic(f"{ROOT}/release/{{node}}", Release, "cloud → edge", retain=True)
STATUS = Topic(f"{ROOT}/status/{{node}}/{{name}}", Status, "each → all", retain=True)
EVENT = Topic(f"{ROOT}/event/{{node}}/{{name}}", Event, "each → all")

TOPICS: tuple[Topic[Message], ...] = (
    PHOTO,
    RESULT,
    SAMPLE,
    RECEIPT,
    FEEDBACK,
    COMMAND,
    POLICY,
    RELEASE,
    STATUS,
    EVENT,
)


def find(topic: str) -> tuple[Topic[Message], dict[str, str]] | None:
    """Return the kind of a topic and the names in it, or None if the contract does not know it."""
    for kind in TOPICS:
        if (names := kind.match(topic)) is not None:
            return kind, names
    return None
