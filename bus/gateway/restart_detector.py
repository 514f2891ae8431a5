"""Detect restarts of edges, so that policy and release are sent again: EventBus has no retained messages."""

from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.messages import Status


class _LastReport(NamedTuple):
    run_id: str
    at: float


@dataclass(slots=True)
class RestartDetector:
    """The last Status of each edge.

    Args:
        silent_s: An edge without a Status for longer than this, in seconds, may have missed messages.
    """

    silent_s: float
    _reports: dict[str, _LastReport] = field(default_factory=dict)

    def has_returned(self, status: Status, now: float) -> bool:
        """Record a Status; return True if its edge started, or was offline or silent before.

        Args:
            status: May be late or a duplicate: sending policy and release once too often is harmless.
            now: Time of its arrival, in seconds of a monotonic clock.
        """
        before = self._reports.pop(status.node, None)
        if status.state == "offline":
            return False
        self._reports[status.node] = _LastReport(status.run_id, now)
        return before is None or before.run_id != status.run_id or now - before.at > self.silent_s
