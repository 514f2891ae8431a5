"""Who a component is on the status topic: birth, report and last will."""

import secrets
import time
from importlib.metadata import version

from msgspec import structs

from bus.metrics import Counters
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.messages import Status
from schemas.topics import STATUS


def now_ms() -> int:
    """Return the time in UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


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
        """Set fields of the Status: `state`, `reason`, `model`."""
        self._status = structs.replace(self._status, **facts)

    def trouble(self) -> str | None:
        """Return what keeps the component from being `online`, or None."""
        status = self._status
        return None if status.state == "online" else f"{status.state}: {status.reason}"

    def status(self, counters: Counters, *, state: str | None = None, will: bool = False) -> Status:
        """Return the Status as of now.

        Args:
            counters: What to report.
            state: Instead of the current state.
            will: This is the last will: it is written now and published by the broker later.
        """
        reason = "the connection broke" if will else self._status.reason
        facts: dict[str, object] = {"at_ms": now_ms(), "reason": reason, "counters": counters.snapshot()}
        return structs.replace(self._status, **facts, state=state or self._status.state)

    def is_own(self, payload: bytes) -> bool:
        """Tell whether a status is a report of this very run, and no last will."""
        try:
            status = decode(STATUS, payload, {"node": self.node, "name": self.name})
        except CodecError:
            return False
        return status.run_id == self._status.run_id and status.state != "offline"
