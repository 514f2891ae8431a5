"""Who a component is on the status topic: birth, report and last will."""

import secrets
import time
from importlib.metadata import version
from typing import NamedTuple

from msgspec import structs

from bus.metrics import Counters
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import STATUS

_REASON_LENGTH = 1024


def now_ms() -> int:
    """Return the time in UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Problem(NamedTuple):
    """Why a part does not do its work, and since when, in seconds of the monotonic clock."""

    since: float
    reason: str


class Presence:
    """What the status topic says of a component.

    Args:
        node: Its node, or `cloud`.
        name: Its name there: a device's, or a reserved one such as `edge`.
        every_s: How often it reports, in seconds.

    Raises:
        TopicError: Node or name is no DNS label.
    """

    def __init__(self, node: str, name: str, *, every_s: float = 15.0) -> None:
        self.topic = STATUS.name(node=node, name=name)
        self.node = node
        self.name = name
        self.every_s = every_s
        self._problems: dict[str, Problem] = {}
        self.unsaid = False
        """Whether something changed since the last Status."""
        self._status = Status(
            node=node,
            name=name,
            state="online",
            at_ms=now_ms(),
            since_ms=now_ms(),
            software=version("gleaner"),
            run_id=secrets.token_hex(8),
        )

    def change(self, **facts: object) -> None:
        """Set fields of the Status, such as `model`."""
        self.unsaid = True
        self._status = structs.replace(self._status, **facts)

    def degrade(self, part: str, reason: str) -> bool:
        """Note that a part of the component does not do its work, and why; tells whether it did until now."""
        self.unsaid = True
        fresh = part not in self._problems
        since = time.monotonic() if fresh else self._problems[part].since
        self._problems[part] = Problem(since, reason)
        return fresh

    def recover(self, part: str) -> float | None:
        """Note that a part works again; returns how long it did not, in seconds, None if it did all along."""
        if (trouble := self._problems.pop(part, None)) is None:
            return None
        self.unsaid = True
        return time.monotonic() - trouble.since

    def trouble(self) -> str | None:
        """Return everything that keeps the component from its work, or None: then it is `online`."""
        return "; ".join(trouble.reason for trouble in self._problems.values()) or None

    def status(self, counters: Counters, *, offline: str | None = None) -> Status:
        """Return the Status as of now.

        Args:
            counters: What to report.
            offline: Why this is the last word of this connection; None while it lasts.
        """
        self.unsaid = False
        reason = offline or self.trouble()
        return structs.replace(
            self._status,
            state="offline" if offline else "degraded" if reason else "online",
            reason=reason and reason[:_REASON_LENGTH],
            at_ms=now_ms(),
            counters=counters.snapshot(),
        )

    def is_own(self, payload: bytes) -> bool:
        """Tell whether a status is a report of this very run, and no last will."""
        try:
            status = decode(STATUS, payload, {"node": self.node, "name": self.name})
        except CodecError:
            return False
        return status.run_id == self._status.run_id and status.state != "offline"
