"""Decide which nodes and cloud components are silent, from their Status messages: no I/O, no clock."""

from collections.abc import Iterator
from dataclasses import dataclass

from bus.notifications.digest import News
from schemas.messages import Status
from schemas.topics import CLOUD, HANDLERS

SILENT = "node.silent"
BACK = "node.back"


@dataclass(slots=True)
class _Seen:
    at: float
    reason: str | None = None
    silent_since: float | None = None


class PresenceWatch:
    """When each edge handler and cloud component was last online.

    Devices are not watched: cameras are switched off every day. Bounded by the number of nodes.

    Args:
        silent_s: Silent after this many seconds, offline or without a Status.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._seen: dict[str, _Seen] = {}

    def forget(self, node: str, name: str) -> None:
        """Forget a component whose retained Status was cleared."""
        self._seen.pop(f"{node}.{name}", None)

    def take(self, status: Status, now: float) -> News | None:
        """Take a Status; return the news that a silent component is back."""
        if status.node != CLOUD and status.name not in HANDLERS:
            return None
        name = f"{status.node}.{status.name}"
        seen = self._seen.setdefault(name, _Seen(now))
        if status.state == "offline":  # the time of its last sign of life stays
            seen.reason = status.reason
            return None
        self._seen[name] = _Seen(now)
        since = seen.silent_since
        return None if since is None else News(BACK, f"{name} is back after {_minutes(now - since)}")

    def connected(self, now: float) -> None:
        """Restart every component's time: while this client was disconnected, it heard none."""
        for seen in self._seen.values():
            if seen.silent_since is None:
                seen.at = now

    def newly_silent(self, now: float) -> Iterator[News]:
        """Yield the components that became silent."""
        for name, seen in self._seen.items():
            if seen.silent_since is None and now - seen.at >= self._silent_s:
                seen.silent_since = seen.at
                why = f" ({seen.reason})" if seen.reason else ""
                yield News(SILENT, f"{name} is silent for {_minutes(now - seen.at)}{why}")

    def next_check_at(self) -> float | None:
        """Return when the next component may become silent, or None."""
        heard = (seen.at for seen in self._seen.values() if seen.silent_since is None)
        return min((at + self._silent_s for at in heard), default=None)


def _minutes(duration_s: float) -> str:
    return f"{duration_s:.0f} s" if duration_s < 120 else f"{duration_s / 60:.0f} min"  # noqa: PLR2004  # two minutes
