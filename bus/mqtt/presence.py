"""The Status of a component: its fields, its degraded parts, and its last will."""

import secrets
import time
from importlib.metadata import version
from typing import NamedTuple

from msgspec import structs

from bus.metrics import Counters
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.messages import MAX_TEXT_CHARS, Status
from schemas.topics import STATUS


def now_ms() -> int:
    """Return the time as milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Problem(NamedTuple):
    """Why a part does not work, and since when, in seconds of the monotonic clock."""

    since: float
    reason: str


class Presence:
    """Builds the Status of a component.

    Args:
        node: Its node, or `cloud`.
        name: Its name on that node: a device's, or a reserved one such as `edge`.
        every_s: Interval between Status messages, in seconds.

    Raises:
        TopicError: Node or name is not a DNS label.
    """

    def __init__(self, node: str, name: str, *, every_s: float = 15.0) -> None:
        self.topic = STATUS.name(node=node, name=name)
        self.node = node
        self.name = name
        self.every_s = every_s
        self._problems: dict[str, Problem] = {}
        self.unpublished = False
        """Whether something changed since the last call of `status`."""
        self._status = Status(
            node=node,
            name=name,
            state="online",
            at_ms=now_ms(),
            since_ms=now_ms(),
            software=version("gleaner"),
            run_id=secrets.token_hex(8),  # lets the gateway detect restarts, and `is_own` earlier runs
        )

    def update(self, **fields: object) -> None:
        """Set fields of the Status, for example `model`."""
        self.unpublished = True
        self._status = structs.replace(self._status, **fields)

    def degrade(self, part: str, reason: str) -> bool:
        """Record that a part of the component does not work; return True if it worked until now."""
        self.unpublished = True
        is_new = part not in self._problems
        # A changed reason is still the same outage.
        since = time.monotonic() if is_new else self._problems[part].since
        self._problems[part] = Problem(since, reason)
        return is_new

    def recover(self, part: str) -> float | None:
        """Record that a part works; return its outage in seconds, None if it was not degraded."""
        if (problem := self._problems.pop(part, None)) is None:
            return None
        self.unpublished = True
        return time.monotonic() - problem.since

    def degraded_reason(self) -> str | None:
        """Return the reasons of all degraded parts; None if the component is `online`."""
        return "; ".join(problem.reason for problem in self._problems.values()) or None

    def status(self, counters: Counters, *, offline: str | None = None) -> Status:
        """Return the Status as of now.

        Args:
            counters: Values for its counters.
            offline: Why the component goes offline; None if it does not.
        """
        self.unpublished = False
        reason = offline or self.degraded_reason()
        return structs.replace(
            self._status,
            state="offline" if offline else "degraded" if reason else "online",
            reason=reason and reason[:MAX_TEXT_CHARS],
            at_ms=now_ms(),
            counters=counters.snapshot(),
        )

    def is_own(self, payload: bytes) -> bool:
        """Return True for a Status that this run published while online; False for a last will."""
        try:
            status = decode(STATUS, payload, {"node": self.node, "name": self.name})
        except CodecError:
            return False
        return status.run_id == self._status.run_id and status.state != "offline"
