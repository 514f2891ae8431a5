"""When an edge has to be told anew what lasts: the EventBus retains nothing for it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.messages import Status


class _Seen(NamedTuple):
    run_id: str
    at: float


@dataclass(slots=True)
class RestartDetector:
    """What the edges last said of themselves.

    Args:
        silent_s: An edge that said nothing for longer may have missed something.
    """

    silent_s: float
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def returned(self, status: Status, now: float) -> bool:
        """Note an edge's status and tell whether it is there again: started, or back after a silence.

        Args:
            status: As it came, perhaps late or twice; to be told once too often does an edge no harm.
            now: Seconds of a monotonic clock.
        """
        before = self._seen.pop(status.node, None)
        if status.state == "offline":
            return False
        self._seen[status.node] = _Seen(status.run_id, now)
        return before is None or before.run_id != status.run_id or now - before.at > self.silent_s
