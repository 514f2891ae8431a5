"""Who may do what: identities, the one table of their rights, and mosquitto's access control list from it.

Whoever connects proves a name with a certificate: `node.name`, the two names of its status topic; a bridge
its node's name alone. A dot is in no topic name, so no two share one. What no row allows is refused.
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
    HANDLERS,
    PHOTO,
    POLICY,
    RECEIPT,
    RELEASE,
    RESERVED_NAMES,
    RESULT,
    SAMPLE,
    STATUS,
    TOPICS,
    Topic,
    check_name,
)

Kind = Literal[
    "device", "edge", "bridge", "eventbus", "collector", "trainer", "rollout", "gateway", "operator"
]
Direction = Literal["read", "write"]

_COMPONENTS = get_args(Kind)[4:]
_COMMON_NAME_LENGTH = 64  # the most that X.509 allows
_NO_DEVICES = (*RESERVED_NAMES, "operator", "broker", "bridge", "eventbus")
_RESERVED = re.compile(rf"({'|'.join(_NO_DEVICES)})(-[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may connect.

    Args:
        kind: Decides the rights.
        node: Its edge node, or `cloud`.
        name: Its name there, as on the status topic.
    """

    kind: Kind
    node: str
    name: str

    @property
    def common_name(self) -> str:
        """What its certificate says, and the broker knows it by."""
        return self.node if self.kind == "bridge" else f"{self.node}.{self.name}"


class Scope(NamedTuple):
    """Which topics of a kind: what the names in them may be, None for anything; the same in words."""

    node: str | None
    names: tuple[str | None, ...]
    words: str


_OWN = Scope("{node}", ("{name}",), "its own")
_NODE = Scope("{node}", (None,), "its node's")
_NODES_EDGE = Scope("{node}", HANDLERS[:1], "its edge's")
_NODES_HANDLERS = Scope("{node}", HANDLERS, "its handlers'")
_ANY_EDGE = Scope(None, HANDLERS[:1], "every edge's")
_ANY = Scope(None, (None,), "all")


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One row of the table: this kind may read or write these of the topics."""

    kind: Kind
    direction: Direction
    topic: Topic[Message]
    scope: Scope

    def filters(self, identity: Identity) -> Iterator[str]:
        """Yield the topics that an identity of this kind has the right to."""
        for name in self.scope.names:
            wanted = {"node": self.scope.node, "device": name, "name": name}
            names = {
                place: value.format(node=identity.node, name=identity.name)
                for place in self.topic.names
                if (value := wanted[place]) is not None
            }
            yield self.topic.select(**names)


def _may(kind: Kind, direction: Direction, scope: Scope, *topics: Topic[Message]) -> Iterator[AclEntry]:
    return (AclEntry(kind, direction, topic, scope) for topic in topics)


ACL: tuple[AclEntry, ...] = (
    *_may("device", "write", _OWN, PHOTO, FEEDBACK, STATUS, EVENT),
    *_may("device", "read", _OWN, RESULT, COMMAND, STATUS),
    *_may("edge", "write", _NODE, RESULT, SAMPLE),
    *_may("edge", "write", _OWN, STATUS, EVENT),
    *_may("edge", "read", _NODE, PHOTO, FEEDBACK, RECEIPT, POLICY, RELEASE, STATUS),
    *_may("bridge", "write", _NODE, SAMPLE, FEEDBACK),
    *_may("bridge", "write", _NODES_HANDLERS, STATUS, EVENT),
    *_may("bridge", "read", _NODE, RECEIPT, POLICY, RELEASE, COMMAND),
    # KubeEdge's EventBus carries at a node's own broker what a bridge does, but only the first of
    # several handlers'; a probe of its Rules goes down on topics that come up.
    *_may("eventbus", "write", _NODE, RECEIPT, POLICY, RELEASE, COMMAND, SAMPLE, FEEDBACK),
    *_may("eventbus", "write", _NODES_EDGE, STATUS, EVENT),
    *_may("eventbus", "read", _NODE, SAMPLE, FEEDBACK),
    *_may("eventbus", "read", _NODES_EDGE, STATUS, EVENT),
    *_may("collector", "write", _ANY, RECEIPT),
    *_may("collector", "write", _OWN, STATUS, EVENT),
    *_may("collector", "read", _ANY, SAMPLE, FEEDBACK),
    *_may("collector", "read", _OWN, STATUS),
    *_may("trainer", "write", _OWN, STATUS, EVENT),
    *_may("trainer", "read", _OWN, STATUS),
    *_may("rollout", "write", _ANY, POLICY, RELEASE),
    *_may("rollout", "write", _OWN, STATUS, EVENT),
    *_may("rollout", "read", _ANY, POLICY, RELEASE, STATUS, EVENT),
    # The gateway speaks for the edges: what the EventBus carries for one node, it carries for all.
    *_may("gateway", "write", _ANY, SAMPLE, FEEDBACK),
    *_may("gateway", "write", _ANY_EDGE, STATUS, EVENT),
    *_may("gateway", "write", _OWN, STATUS, EVENT),
    *_may("gateway", "read", _ANY, RECEIPT, POLICY, RELEASE, COMMAND),
    *_may("gateway", "read", _OWN, STATUS, EVENT),  # `gleaner deploy verify` runs beside it
    *_may("operator", "write", _ANY, PHOTO, FEEDBACK, COMMAND),
    *_may("operator", "write", _OWN, EVENT),
    *_may("operator", "read", _ANY, *TOPICS),
)


def device(node: str, name: str) -> Identity:
    """Return the identity of a device.

    Raises:
        TopicError: A name is no DNS label, means something else, or both are too long together.
    """
    if _RESERVED.fullmatch(check_name(name, what="device")):
        raise TopicError("device", expected="a name that is not reserved", got=name)
    return Identity("device", _edge_node(node, name), name)


def edge(node: str, name: str = HANDLERS[0]) -> Identity:
    """Return the identity of a node's handler, one of `HANDLERS`; TopicError as for a device."""
    return Identity("edge", _edge_node(node, name), name)


def bridge(node: str) -> Identity:
    """Return the identity with which a node's broker connects to the cloud's; TopicError as for a device."""
    return Identity("bridge", _edge_node(node), "bridge")


def _edge_node(node: str, name: str = "broker") -> str:
    if check_name(node, what="node") == CLOUD:
        raise TopicError("node", expected="a name of its own", got=f"{CLOUD}, which is the cloud's")
    if len(f"{node}.{name}") > _COMMON_NAME_LENGTH:
        raise TopicError("node and name", expected=f"{_COMMON_NAME_LENGTH} characters", got=f"{node}.{name}")
    return node


def eventbus(node: str) -> Identity:
    """Return the identity of a node's EventBus at its broker; TopicError as for a device."""
    return Identity("eventbus", _edge_node(node), "eventbus")


def component(name: str) -> Identity:
    """Return the identity of what runs in the cloud, for example `collector-2`, and of the operator.

    Raises:
        TopicError: There is no such component.
    """
    kind = re.sub("-[0-9]+$", "", name)
    if kind not in _COMPONENTS:
        raise TopicError("component", expected=f"one of {_COMPONENTS}", got=name)
    return Identity(kind, CLOUD, name)  # type: ignore[arg-type]  # just checked


# Topics that are not ours: the broker's own, and KubeEdge's for devices and for what its nodes upload.
_OUTSIDE: dict[Kind, tuple[str, ...]] = {
    "operator": ("topic read $SYS/#",),
    "edge": ("topic write $hw/events/device/#",),
    "eventbus": ("topic readwrite $hw/#", "topic read +/user/#", "topic read SYS/dis/upload_records"),
}


def filters(identity: Identity, direction: Direction) -> tuple[str, ...]:
    """Return what an identity may read or write, as MQTT filters."""
    mine = (right for right in ACL if (right.kind, right.direction) == (identity.kind, direction))
    return tuple(chosen for right in mine for chosen in right.filters(identity))


def access_list(identities: Iterable[Identity]) -> str:
    """Return mosquitto's access control list for a broker on which these may connect."""
    lines = ["# Written by gleaner provision from bus/security/acl.py. What is not allowed is refused."]
    for identity in identities:
        lines += ["", f"user {identity.common_name}"]
        lines += [f"topic write {chosen}" for chosen in filters(identity, "write")]
        lines += [f"topic read {chosen}" for chosen in filters(identity, "read")]
        lines += _OUTSIDE.get(identity.kind, ())
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the table of rights in Markdown: a row for each kind of identity, topics by direction."""
    rows = (f"| {kind} | {_told(kind, 'write')} | {_told(kind, 'read')} |\n" for kind in get_args(Kind))
    return "| identity | may write | may read |\n|---|---|---|\n" + "".join(rows)


def _told(kind: Kind, direction: Direction) -> str:
    by_scope: dict[str, list[str]] = {}
    for right in ACL:
        if (right.kind, right.direction) == (kind, direction):
            by_scope.setdefault(right.scope.words, []).append(right.topic.kind)
    return "; ".join(f"{words} {', '.join(kinds)}" for words, kinds in by_scope.items())
