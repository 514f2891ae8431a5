"""Which topics cross, and where each is on the two HTTP interfaces: the gateway's own and the Router's.

The Router tells its target neither topic nor node, so each topic of each node has a URL of its own. On the
way down the URL is the Router's, the node, and the topic: its namespace, and the rest as the path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from schemas.messages import Message
from schemas.topics import COMMAND, EVENT, FEEDBACK, NAME, POLICY, RECEIPT, RELEASE, SAMPLE, STATUS, Topic

EDGE = "edge"
DOWN: tuple[Topic[Message], ...] = (RECEIPT, COMMAND, POLICY, RELEASE)
LASTING: tuple[Topic[Message], ...] = (POLICY, RELEASE)
"""What a node is to know at any time: only the newest counts, and it is sent again when the node returns."""

_UP: Mapping[str, Topic[Message]] = MappingProxyType(
    {topic.kind: topic for topic in (SAMPLE, STATUS, EVENT, FEEDBACK)}
)
_ONE_PER_NODE = (SAMPLE, STATUS, EVENT)


@dataclass(frozen=True, slots=True)
class Route:
    """One exact topic that crosses from an edge node to the cloud: the EventBus passes on no wildcards.

    Args:
        topic: Its kind.
        node: Whose.
        device: Whose feedback; None for the edge's own topics.
    """

    topic: Topic[Message]
    node: str
    device: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """The names in the topic."""
        wanted = {"node": self.node, "name": EDGE, "device": self.device or ""}
        return {name: wanted[name] for name in self.topic.names}

    @property
    def name(self) -> str:
        """The topic."""
        return self.topic.name(**self.names)

    @property
    def path(self) -> str:
        """Where the gateway takes it."""
        return f"/up/{self.node}/{self.topic.kind}" + (f"/{self.device}" if self.device else "")


def node_routes(node: str, devices: Sequence[str] = ()) -> tuple[Route, ...]:
    """Return what crosses from a node, with the feedback of these devices."""
    own = (Route(topic, node) for topic in _ONE_PER_NODE)
    return (*own, *(Route(FEEDBACK, node, device) for device in devices))


def find_route(node: str, kind: str, device: str | None = None) -> Route | None:
    """Return what a path of the gateway stands for, None if it is none."""
    topic = _UP.get(kind)
    if topic is None or (topic is FEEDBACK) != (device is not None):
        return None
    if not all(NAME.fullmatch(name) for name in (node, device) if name is not None):
        return None
    return Route(topic, node, device)


def down_url(router: str, node: str, topic: str) -> str:
    """Return where the Router takes a message for a topic at a node."""
    return f"{router}/{node}/{topic}"
