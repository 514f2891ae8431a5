"""The topics that cross between edge and cloud, and their URLs at the gateway and at KubeEdge's Router.

Upwards the Router passes neither topic nor node to its target, so each topic of each node has its own URL at
the gateway. Downwards the Router's URL is made of the node and the topic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from schemas.messages import Message
from schemas.topics import (
    COMMAND,
    EVENT,
    FEEDBACK,
    FORGET,
    NAME,
    POLICY,
    RECEIPT,
    RELEASE,
    SAMPLE,
    STATUS,
    Topic,
)

EDGE = "edge"
DOWN_TOPICS: tuple[Topic[Message], ...] = (RECEIPT, COMMAND, POLICY, RELEASE, FORGET)
"""Topics from the cloud to the edge."""
STATE_TOPICS: tuple[Topic[Message], ...] = (POLICY, RELEASE, FORGET)
"""Topics whose newest message a node must know: sent again when it returns, and at intervals."""

_UP_TOPICS: Mapping[str, Topic[Message]] = MappingProxyType(
    {topic.kind: topic for topic in (SAMPLE, STATUS, EVENT, FEEDBACK)}
)
_TOPICS_OF_EDGE = (SAMPLE, STATUS, EVENT)


@dataclass(frozen=True, slots=True)
class Route:
    """One exact topic from an edge node to the cloud; EventBus supports no wildcards.

    Args:
        topic: The kind of topic.
        node: The edge node.
        device: The device, for feedback; None for topics of the edge itself.
    """

    topic: Topic[Message]
    node: str
    device: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """The names in the topic."""
        values = {"node": self.node, "name": EDGE, "device": self.device or ""}
        return {name: values[name] for name in self.topic.names}

    @property
    def name(self) -> str:
        """The topic name."""
        return self.topic.name(**self.names)

    @property
    def path(self) -> str:
        """The URL path at the gateway."""
        return f"/up/{self.node}/{self.topic.kind}" + (f"/{self.device}" if self.device else "")


def node_routes(node: str, devices: Sequence[str] = ()) -> tuple[Route, ...]:
    """Return the routes of an edge node: those of the edge itself, and the feedback of these devices."""
    of_edge = (Route(topic, node) for topic in _TOPICS_OF_EDGE)
    return (*of_edge, *(Route(FEEDBACK, node, device) for device in devices))


def find_route(node: str, kind: str, device: str | None = None) -> Route | None:
    """Return the route for the parts of a URL path, or None."""
    topic = _UP_TOPICS.get(kind)
    if topic is None or (topic is FEEDBACK) != (device is not None):
        return None
    if not all(NAME.fullmatch(name) for name in (node, device) if name is not None):
        return None
    return Route(topic, node, device)


def down_url(router: str, node: str, topic: str) -> str:
    """Return the Router's URL for a message on a topic at a node."""
    return f"{router}/{node}/{topic}"
