"""Access control: identities, the table of their permissions, and mosquitto's ACL file generated from it.

Clients authenticate with a certificate whose common name is `node.name`, the two names of their status topic;
that of a bridge is its node's name. Names contain no dots, so common names are unique. Default deny: what no
entry allows is refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from schemas.errors import TopicError
from schemas.messages import Message
from schemas.topics import (
    CLOUD,
    COMMAND,
    EVENT,
    FEEDBACK,
    FORGET,
    HANDLERS,
    PHOTO,
    POLICY,
    RECEIPT,
    RELEASE,
    RESULT,
    SAMPLE,
    STATUS,
    STEERING,
    TOPICS,
    Topic,
    check_device_name,
    check_node_name,
)

Kind = Literal[
    "device", "edge", "bridge", "eventbus", "homeassistant",
    "collector", "trainer", "rollout", "gateway", "console", "notify", "operator",
]  # fmt: skip
Direction = Literal["read", "write"]

_COMPONENTS = get_args(Kind)[5:]  # from `collector` on
_MAX_COMMON_NAME_CHARS = 64  # the limit of X.509


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that may connect.

    Args:
        kind: Decides its permissions.
        node: Its edge node, or `cloud`.
        name: Its name on that node, as on the status topic.
    """

    kind: Kind
    node: str
    name: str

    @property
    def common_name(self) -> str:
        """The common name of its certificate, which the broker uses as its user name."""
        return self.node if self.kind == "bridge" else f"{self.node}.{self.name}"


class Scope(NamedTuple):
    """Restriction of the names in a topic.

    Args:
        node: Value for the node, or a format string with fields of the identity; None for any.
        names: Allowed values for device or name, as for the node.
        words: The scope in words, for the documentation.
    """

    node: str | None
    names: tuple[str | None, ...]
    words: str


_OWN = Scope("{node}", ("{name}",), "its own")
_NODE = Scope("{node}", (None,), "its node's")
_EDGE_OF_NODE = Scope("{node}", HANDLERS[:1], "its edge's")
_HANDLERS_OF_NODE = Scope("{node}", HANDLERS, "its handlers'")
_ANY_EDGE = Scope(None, HANDLERS[:1], "every edge's")
_PERSONS = Scope(CLOUD, ("operator",), "people's")
_CLOUD = Scope(CLOUD, (None,), "the cloud's")
_ANY = Scope(None, (None,), "all")


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One permission: identities of a kind may read or write a topic within a scope."""

    kind: Kind
    direction: Direction
    topic: Topic[Message]
    scope: Scope

    def filters(self, identity: Identity) -> Iterator[str]:
        """Yield the topic filters that this entry allows an identity."""
        for name in self.scope.names:
            values = {"node": self.scope.node, "device": name, "name": name}
            names = {
                placeholder: value.format(node=identity.node, name=identity.name)
                for placeholder in self.topic.names
                if (value := values[placeholder]) is not None
            }
            yield self.topic.select(**names)


def _allow(kind: Kind, direction: Direction, scope: Scope, *topics: Topic[Message]) -> Iterator[AclEntry]:
    return (AclEntry(kind, direction, topic, scope) for topic in topics)


ACL: tuple[AclEntry, ...] = (
    *_allow("device", "write", _OWN, PHOTO, FEEDBACK, STATUS, EVENT),
    *_allow("device", "read", _OWN, RESULT, COMMAND, STATUS),
    *_allow("edge", "write", _NODE, RESULT, SAMPLE),
    *_allow("edge", "write", _OWN, STATUS, EVENT),
    *_allow("edge", "read", _NODE, PHOTO, FEEDBACK, RECEIPT, POLICY, RELEASE, FORGET, STATUS),
    *_allow("bridge", "write", _NODE, SAMPLE, FEEDBACK),
    *_allow("bridge", "write", _HANDLERS_OF_NODE, STATUS, EVENT),
    *_allow("bridge", "read", _NODE, RECEIPT, POLICY, RELEASE, FORGET, COMMAND),
    # KubeEdge's EventBus forwards at a node's broker what a bridge does, but of several handlers only the
    # first. It also writes the topics that go up: a probe of a Rule goes down on them.
    *_allow("eventbus", "write", _NODE, RECEIPT, POLICY, RELEASE, FORGET, COMMAND, SAMPLE, FEEDBACK),
    *_allow("eventbus", "write", _EDGE_OF_NODE, STATUS, EVENT),
    *_allow("eventbus", "read", _NODE, SAMPLE, FEEDBACK),
    *_allow("eventbus", "read", _EDGE_OF_NODE, STATUS, EVENT),
    # Home Assistant reads the states of its node's devices and commands them to take photos.
    *_allow("homeassistant", "write", _NODE, COMMAND),
    *_allow("homeassistant", "read", _NODE, STATUS),
    *_allow("collector", "write", _ANY, RECEIPT),
    *_allow("collector", "write", _OWN, STATUS, EVENT),
    *_allow("collector", "read", _ANY, SAMPLE, FEEDBACK),
    *_allow("collector", "read", _OWN, STATUS),
    *_allow("trainer", "write", _OWN, STATUS, EVENT),
    *_allow("trainer", "read", _OWN, STATUS),
    # Statuses of others only to clear them: `gleaner cloud retire`, for a node that is gone.
    *_allow("rollout", "write", _ANY, POLICY, RELEASE, FORGET, STATUS),
    *_allow("rollout", "write", _OWN, EVENT),
    *_allow("rollout", "read", _ANY, POLICY, RELEASE, FORGET, STATUS, EVENT),
    *_allow("rollout", "read", _OWN, STEERING),
    # The gateway publishes for the edges: it may do for all nodes what EventBus may do for one.
    *_allow("gateway", "write", _ANY, SAMPLE, FEEDBACK),
    *_allow("gateway", "write", _ANY_EDGE, STATUS, EVENT),
    *_allow("gateway", "write", _OWN, STATUS, EVENT),
    *_allow("gateway", "read", _ANY, RECEIPT, POLICY, RELEASE, FORGET, COMMAND),
    *_allow("gateway", "read", _OWN, STATUS, EVENT),  # `gleaner deploy verify` uses its certificate too
    # As a person: on the topic of node `cloud`, which no device may write.
    *_allow("console", "write", _PERSONS, FEEDBACK),
    *_allow("console", "write", _OWN, STATUS, EVENT),
    *_allow("console", "write", _CLOUD, STEERING),
    *_allow("console", "write", _ANY, POLICY, FORGET),
    *_allow("console", "read", _CLOUD, STEERING),
    *_allow("console", "read", _ANY, PHOTO, RESULT, STATUS, EVENT, POLICY, RELEASE, FORGET),
    *_allow("notify", "write", _OWN, STATUS, EVENT),
    *_allow("notify", "read", _ANY, STATUS, EVENT),
    *_allow("operator", "write", _ANY, PHOTO, FEEDBACK, COMMAND),
    *_allow("operator", "write", _OWN, EVENT),
    *_allow("operator", "write", _CLOUD, STEERING),
    *_allow("operator", "read", _ANY, *TOPICS),  # for `gleaner tail` and `gleaner cloud status`
)


def writers(topic: Topic[Message]) -> list[Kind]:
    """Return the kinds that may write a topic of every node, except the gateway, which only forwards."""
    anywhere = (entry.kind for entry in ACL if _writes_anywhere(entry, topic))
    return [kind for kind in anywhere if kind != "gateway"]


def _writes_anywhere(entry: AclEntry, topic: Topic[Message]) -> bool:
    return (entry.direction, entry.topic, entry.scope) == ("write", topic, _ANY)


def device(node: str, name: str) -> Identity:
    """Return the identity of a device.

    Raises:
        TopicError: A name is not a DNS label or is reserved, or the common name is too long.
    """
    return Identity("device", _edge_node(node, check_device_name(name)), name)


def edge(node: str, name: str = HANDLERS[0]) -> Identity:
    """Return the identity of a node's handler, one of `HANDLERS`; raises TopicError like `device`."""
    return Identity("edge", _edge_node(node, name), name)


def is_handler(common_name: str) -> bool:
    """Return True if the certificate with this common name is that of a node's handler."""
    return common_name.partition(".")[2] in HANDLERS


def bridge(node: str) -> Identity:
    """Return the identity of a node's bridge to the cloud's broker; raises TopicError like `device`."""
    return Identity("bridge", _edge_node(node), "bridge")


def _edge_node(node: str, name: str = "broker") -> str:
    check_node_name(node)
    if len(f"{node}.{name}") > _MAX_COMMON_NAME_CHARS:
        raise TopicError(
            "node and name", expected=f"at most {_MAX_COMMON_NAME_CHARS} characters", got=f"{node}.{name}"
        )
    return node


def eventbus(node: str) -> Identity:
    """Return the identity of KubeEdge's EventBus at a node's broker; raises TopicError like `device`."""
    return Identity("eventbus", _edge_node(node), "eventbus")


def homeassistant(node: str) -> Identity:
    """Return the identity of Home Assistant at a node's broker; raises TopicError like `device`."""
    return Identity("homeassistant", _edge_node(node, "homeassistant"), "homeassistant")


def component(name: str) -> Identity:
    """Return the identity of a cloud component, for example `collector-2`, or of the operator.

    Raises:
        TopicError: The name is not that of a component.
    """
    kind = re.sub("-[0-9]+$", "", name)
    if kind not in _COMPONENTS:
        raise TopicError("component", expected=f"one of {_COMPONENTS}", got=name)
    return Identity(kind, CLOUD, name)  # type: ignore[arg-type]  # checked above


_DROPS = "topic read $SYS/broker/publish/messages/dropped"  # a metric
_SHOWN = "gleaner/homeassistant/{node}/#"
# Topics outside the contract: the broker's statistics, KubeEdge's topics for devices and uploads, and Home
# Assistant's discovery, which it clears itself when a user deletes a device.
_EXTRA_LINES: dict[Kind, tuple[str, ...]] = {
    "operator": ("topic read $SYS/#",),
    "edge": (
        "topic write $hw/events/device/#",
        _DROPS,
        "topic write homeassistant/#",
        "topic read homeassistant/status",
        f"topic readwrite {_SHOWN}",
    ),
    "homeassistant": ("topic readwrite homeassistant/#", f"topic read {_SHOWN}"),
    "collector": (_DROPS,),
    "eventbus": ("topic readwrite $hw/#", "topic read +/user/#", "topic read SYS/dis/upload_records"),
}


def filters(identity: Identity, direction: Direction) -> tuple[str, ...]:
    """Return the MQTT topic filters that an identity may read or write."""
    entries = (entry for entry in ACL if (entry.kind, entry.direction) == (identity.kind, direction))
    return tuple(topic_filter for entry in entries for topic_filter in entry.filters(identity))


def access_list(identities: Iterable[Identity]) -> str:
    """Return the text of mosquitto's ACL file for a broker that serves these identities."""
    lines = ["# Written by gleaner provision from bus/security/acl.py. What is not listed is refused."]
    for identity in identities:
        lines += ["", f"user {identity.common_name}"]
        lines += [f"topic write {topic_filter}" for topic_filter in filters(identity, "write")]
        lines += [f"topic read {topic_filter}" for topic_filter in filters(identity, "read")]
        lines += [line.format(node=identity.node) for line in _EXTRA_LINES.get(identity.kind, ())]
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the permissions as a Markdown table: one row for each kind of identity."""
    rows = (
        f"| {kind} | {_in_words(kind, 'write')} | {_in_words(kind, 'read')} |\n" for kind in get_args(Kind)
    )
    return "| identity | may write | may read |\n|---|---|---|\n" + "".join(rows)


def _in_words(kind: Kind, direction: Direction) -> str:
    by_scope: dict[str, list[str]] = {}
    for entry in ACL:
        if (entry.kind, entry.direction) == (kind, direction):
            by_scope.setdefault(entry.scope.words, []).append(entry.topic.kind)
    return "; ".join(f"{words} {', '.join(kinds)}" for words, kinds in by_scope.items())
