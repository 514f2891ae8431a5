"""The last messages of each kind, in memory and bounded: plain methods without I/O."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from msgspec import structs

from bus.newest import put_newest
from console.live.recent_answers import RecentAnswers
from schemas.messages import CanaryReport, Event, Forget, Policy, Release, Result, Status, Steering
from schemas.topics import CLOUD

K = TypeVar("K")
V = TypeVar("V")

MAX_DEVICES = 1024
"""Most devices whose answers are kept; the one that was silent for longest makes room."""
ANSWERS_PER_DEVICE = 12
MAX_STATUSES = 4096
MAX_SCORES = 64
"""Most scores of an answer that are kept: those of a thousand classes are 100 kB."""
MAX_EVENTS = 2000
MAX_EVENT_CHARS = 8192
"""Most characters in the facts of an event that are kept: a device may send 256 kB of them in each."""
MAX_NODES = 1024
MAX_COMPARISONS = 2000
"""Reports of a rollout, which come every 15 seconds: some hours."""


class Camera(NamedTuple):
    """A device on its node."""

    node: str
    device: str


@dataclass(slots=True)
class LiveState:
    """Messages of the broker: since this process started, and those that it had retained.

    Attributes:
        answers: The last final results of each device, newest first; the device that spoke last is last.
        statuses: The last status of each component, by node and name.
        events: Newest first.
        releases: The release of each node.
        policies: The policy of each node.
        forgets: The order of each node to forget photos.
        recent: The last answers with a class of each node.
        comparisons: What the rollout controller reported of a rollout, oldest first.
        ordered: The last order to a rollout that was given here.
        unreadable: Messages that could not be decoded.
    """

    answers: OrderedDict[Camera, deque[Result]] = field(default_factory=OrderedDict)
    statuses: OrderedDict[tuple[str, str], Status] = field(default_factory=OrderedDict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    releases: OrderedDict[str, Release] = field(default_factory=OrderedDict)
    policies: OrderedDict[str, Policy] = field(default_factory=OrderedDict)
    forgets: OrderedDict[str, Forget] = field(default_factory=OrderedDict)
    recent: RecentAnswers = field(default_factory=RecentAnswers)
    comparisons: deque[CanaryReport] = field(default_factory=lambda: deque(maxlen=MAX_COMPARISONS))
    ordered: Steering | None = None
    unreadable: int = 0

    def add_result(self, result: Result) -> None:
        """Keep a final result; a deferred photo has no answer yet."""
        if result.status == "deferred":
            return
        camera = Camera(result.node, result.device)
        kept = self.answers.setdefault(camera, deque(maxlen=ANSWERS_PER_DEVICE))
        if all(one.photo_id != result.photo_id for one in kept):  # a redelivery is not a second answer
            many = len(result.scores or ()) > MAX_SCORES
            kept.appendleft(structs.replace(result, scores=None) if many else result)
            if result.label is not None:
                self.recent.add(result)
        put_newest(self.answers, camera, kept, MAX_DEVICES)

    def add_status(self, names: tuple[str, str], status: Status | None) -> None:
        """Keep the status of a component; None: it was retired."""
        if names == (CLOUD, "rollout") and status is not None and status.canary is not None:
            self.comparisons.append(status.canary)
        _put(self.statuses, names, status, MAX_STATUSES)

    def add_event(self, event: Event) -> None:
        """Keep an event, one that is larger than any of ours without its facts."""
        self.events.appendleft(
            event if _chars(event) <= MAX_EVENT_CHARS else structs.replace(event, facts={})
        )

    def add_release(self, node: str, release: Release | None) -> None:
        """Keep the release of a node; None: it was withdrawn."""
        _put(self.releases, node, release, MAX_NODES)

    def add_policy(self, node: str, policy: Policy | None) -> None:
        """Keep the policy of a node; None: it was withdrawn."""
        _put(self.policies, node, policy, MAX_NODES)

    def add_forget(self, node: str, order: Forget | None) -> None:
        """Keep the order of a node to forget photos; None: it was withdrawn."""
        _put(self.forgets, node, order, MAX_NODES)

    def latest(self) -> Iterator[Result]:
        """Yield all kept answers, those of the device that spoke last first."""
        for answers in reversed(self.answers.values()):
            yield from answers


def _chars(event: Event) -> int:
    """Return about how many characters the facts of an event have."""
    return sum(len(name) + (len(one) if isinstance(one, str) else 8) for name, one in event.facts.items())


def _put(kept: OrderedDict[K, V], key: K, value: V | None, most: int) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        put_newest(kept, key, value, most)
